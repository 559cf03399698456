<#
.SYNOPSIS
Removes the service datacat-server and its program; sessions, settings and logs stay unless -Purge is given.
#>
[CmdletBinding()]
param([switch]$Purge)

. (Join-Path $PSScriptRoot 'common.ps1')

Assert-Administrator
if (Get-DatacatService) {
    Stop-DatacatService
    Invoke-Program 'sc.exe' @('delete', $ServiceName)
    # It is gone when the last program that looks at it (the Services window, too) has closed it.
    $deadline = (Get-Date).AddSeconds(30)
    while (Get-DatacatService) {
        if ((Get-Date) -gt $deadline) {
            throw "$ServiceName is marked for deletion; close the Services window and Task Manager, and run this again."
        }
        Start-Sleep -Milliseconds 250
    }
}
foreach ($path in @($EventSource, $ProgramFolder)) {
    if (Test-Path -LiteralPath $path) {
        Remove-Item -LiteralPath $path -Recurse -Force
    }
}
if ($Purge -and (Test-Path -LiteralPath $DataFolder)) {
    Remove-Item -LiteralPath $DataFolder -Recurse -Force
}
elseif (Test-Path -LiteralPath $DataFolder) {
    Write-Output "Kept: $DataFolder (sessions, settings, logs); -Purge removes it."
}
