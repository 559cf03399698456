<#
.SYNOPSIS
Puts another version of datacat-server in the place of the one that runs; one that does not come up is taken back.
Sessions and settings stay.
.PARAMETER From
What pip installs: this checkout (the default), a wheel, or a requirement such as datacat.
.PARAMETER Python
The python.exe that hosts the service.
#>
[CmdletBinding()]
param(
    [string]$From = (Resolve-Path (Join-Path $PSScriptRoot '..\..')).Path,
    [string]$Python = 'python.exe'
)

. (Join-Path $PSScriptRoot 'common.ps1')

Assert-Administrator
if (-not (Get-DatacatService)) {
    throw "There is no service $ServiceName; use install.ps1."
}
$site = Join-Path $ProgramFolder 'site'
$new = Join-Path $ProgramFolder 'site.new'
$old = Join-Path $ProgramFolder 'site.old'
Install-Packages (Resolve-Python $Python) $From $new    # the long part, while the old version serves
if (Test-Path -LiteralPath $old) {
    Remove-Item -LiteralPath $old -Recurse -Force
}
Stop-DatacatService
Rename-Item -LiteralPath $site -NewName 'site.old'
Rename-Item -LiteralPath $new -NewName 'site'
Register-EventSource $site
if (Start-DatacatService) {
    Write-Output "The service $ServiceName runs; the version before is in $old."
    return
}
Get-LastWords
Stop-DatacatService
Rename-Item -LiteralPath $site -NewName 'site.new'
Rename-Item -LiteralPath $old -NewName 'site'
if (-not (Start-DatacatService)) {
    throw "Neither the new nor the old version comes up; see the event log and $DataFolder\Logs."
}
throw 'The new version did not come up; the old one runs again.'
