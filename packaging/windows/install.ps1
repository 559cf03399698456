<#
.SYNOPSIS
Makes datacat-server a Windows service: it starts with the machine, is restarted when it fails, and keeps its sessions
in ProgramData\datacat.
.PARAMETER From
What pip installs: this checkout (the default), a wheel, or a requirement such as datacat.
.PARAMETER Python
The python.exe of an installation for all users, 3.11 or later.
#>
[CmdletBinding()]
param(
    [string]$From = (Resolve-Path (Join-Path $PSScriptRoot '..\..')).Path,
    [string]$Python = 'python.exe'
)

. (Join-Path $PSScriptRoot 'common.ps1')

Assert-Administrator
if (Get-DatacatService) {
    throw "The service $ServiceName is there already; use upgrade.ps1, or uninstall.ps1 first."
}
$host_python = Resolve-Python $Python
New-Item -ItemType Directory -Path $ProgramFolder -Force | Out-Null
$site = Join-Path $ProgramFolder 'site'
Install-Packages $host_python $From $site
Copy-Item -LiteralPath (Join-Path $PSScriptRoot 'run.py') -Destination $RunScript -Force
Set-Content -LiteralPath (Join-Path $ProgramFolder 'datacat.cmd') -Encoding ascii -Value @(
    "@`"$host_python`" -I `"$RunScript`" datacat %*")

New-Service -Name $ServiceName -DisplayName 'datacat server' -StartupType Automatic `
    -Description 'Keeps the sessions of apps: which are active, hung or crashed, and why.' `
    -BinaryPathName "`"$host_python`" -I `"$RunScript`" datacat.cli.winservice" | Out-Null
try {
    Set-ServiceSettings
    Initialize-DataFolder
    Register-EventSource $site
}
catch {
    Invoke-Program 'sc.exe' @('delete', $ServiceName)
    throw
}
if (-not (Start-DatacatService)) {
    Get-LastWords
    throw "The service does not come up; see the event log and $DataFolder\Logs, then: Start-Service $ServiceName"
}
Write-Output "The service $ServiceName runs. Settings: $DataFolder\server.toml. Commands: $ProgramFolder\datacat.cmd"
