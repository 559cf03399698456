# What install.ps1, upgrade.ps1 and uninstall.ps1 share: names, folders, and each step as a function.
# Windows PowerShell 5.1 and PowerShell 7. sc.exe wants a space behind each "=".

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version 3.0

$ServiceName = 'datacat-server'
$Account = "NT SERVICE\$ServiceName"
$ProgramFolder = Join-Path $env:ProgramFiles 'datacat'
$DataFolder = Join-Path $env:ProgramData 'datacat'
$EventSource = "HKLM:\SYSTEM\CurrentControlSet\Services\EventLog\Application\$ServiceName"
$RunScript = Join-Path $ProgramFolder 'run.py'

function Assert-Administrator {
    $identity = [Security.Principal.WindowsIdentity]::GetCurrent()
    $principal = New-Object Security.Principal.WindowsPrincipal($identity)
    if (-not $principal.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) {
        throw 'This needs an administrator: open PowerShell with "Run as administrator".'
    }
}

function Invoke-Program {
    # Run a program; its failure is ours.
    param([string]$Program, [string[]]$Arguments)
    & $Program @Arguments | Out-Host
    if ($LASTEXITCODE -ne 0) {
        throw "$Program $($Arguments -join ' ') ended with $LASTEXITCODE"
    }
}

function Get-DatacatService {
    Get-Service -Name $ServiceName -ErrorAction SilentlyContinue
}

function Resolve-Python {
    # The python.exe of an installation for all users: the service account cannot read a user's profile, and the
    # python.exe of a virtual environment is no host for a service.
    param([string]$Python)
    $found = Get-Command -Name $Python -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
    if (-not $found) {
        throw "There is no program $Python; install Python 3.11 or later for all users and name it: -Python PATH"
    }
    $code = "import sys; assert sys.version_info >= (3, 11), 'it is older than 3.11'; " +
        "assert sys.prefix == sys.base_prefix, 'it is a virtual environment'; print(sys.executable)"
    $path = & $found.Source -I -c $code
    if ($LASTEXITCODE -ne 0) {
        throw "$($found.Source) cannot host the service; name another one: -Python PATH"
    }
    if ($path.StartsWith($env:SystemDrive + '\Users\', [StringComparison]::OrdinalIgnoreCase)) {
        throw "$path belongs to one user; install Python for all users and name it: -Python PATH"
    }
    $path
}

function Install-Packages {
    # Put datacat and what it needs into a folder of its own; what runs is not touched.
    param([string]$Python, [string]$From, [string]$Folder)
    if (Test-Path -LiteralPath $Folder) {
        Remove-Item -LiteralPath $Folder -Recurse -Force
    }
    Invoke-Program $Python @('-I', '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check',
        '--target', $Folder, "${From}[server,service]")
}

function Initialize-DataFolder {
    # Everybody may create folders below ProgramData: one that somebody else made could be a trap.
    $wanted = @('S-1-5-18', 'S-1-5-32-544')    # the system, the administrators
    if (Test-Path -LiteralPath $DataFolder) {
        $owner = (Get-Acl -LiteralPath $DataFolder).GetOwner([Security.Principal.SecurityIdentifier]).Value
        if ($wanted -notcontains $owner) {
            throw "$DataFolder belongs to $owner, not to the administrators; look at it and remove it first."
        }
    }
    foreach ($folder in @($DataFolder, (Join-Path $DataFolder 'server'), (Join-Path $DataFolder 'Logs'))) {
        New-Item -ItemType Directory -Path $folder -Force | Out-Null
    }
    Invoke-Program 'icacls.exe' @($DataFolder, '/setowner', '*S-1-5-32-544', '/q')
    # Settings are for reading; data and logs are the service's own. Nothing comes down from ProgramData.
    Invoke-Program 'icacls.exe' @($DataFolder, '/inheritance:r', '/grant:r', '*S-1-5-18:(OI)(CI)F',
        '*S-1-5-32-544:(OI)(CI)F', "${Account}:(OI)(CI)RX", '/q')
    foreach ($name in @('server', 'Logs')) {
        Invoke-Program 'icacls.exe' @((Join-Path $DataFolder $name), '/inheritance:r', '/grant:r',
            '*S-1-5-18:(OI)(CI)F', '*S-1-5-32-544:(OI)(CI)F', "${Account}:(OI)(CI)M", '/q')
    }
    $settings = Join-Path $DataFolder 'server.toml'
    if (-not (Test-Path -LiteralPath $settings)) {
        $lines = '# Settings of datacat-server, one "name = value" a line. After a change: Restart-Service datacat-server',
            '#port = 8080', '#retention_days = 30'
        Set-Content -LiteralPath $settings -Value $lines -Encoding ascii
    }
}

function Register-EventSource {
    # The service account may not do it. The texts are in pywin32's own file.
    param([string]$Site)
    $messages = Get-ChildItem -Path (Join-Path $Site 'win32') -Filter 'servicemanager*.pyd' | Select-Object -First 1
    if (-not $messages) {
        throw "pywin32 is incomplete: there is no servicemanager.pyd in $Site\win32"
    }
    New-Item -Path $EventSource -Force | Out-Null
    New-ItemProperty -Path $EventSource -Name EventMessageFile -Value $messages.FullName -Force | Out-Null
    New-ItemProperty -Path $EventSource -Name TypesSupported -PropertyType DWord -Value 7 -Force | Out-Null
}

function Set-ServiceSettings {
    # A virtual account has no password; it has its rights by its own SID.
    Invoke-Program 'sc.exe' @('config', $ServiceName, 'start=', 'delayed-auto', 'obj=', $Account)
    Invoke-Program 'sc.exe' @('sidtype', $ServiceName, 'unrestricted')
    # Restarted after 1, 5, then always 30 s; a day without a failure begins anew. The flag: also when it reports an
    # error code, not only when it crashes.
    Invoke-Program 'sc.exe' (-split "failure $ServiceName reset= 86400 actions= restart/1000/restart/5000/restart/30000")
    Invoke-Program 'sc.exe' (-split "failureflag $ServiceName 1")
}

function Start-DatacatService {
    # Return whether it serves: Start-Service waits for Running, which the service reports only then.
    Start-Service -Name $ServiceName -ErrorAction SilentlyContinue
    (Get-DatacatService).Status -eq 'Running'
}

function Stop-DatacatService {
    $service = Get-DatacatService
    if ($service -and $service.Status -ne 'Stopped') {
        Stop-Service -Name $ServiceName -Force
        $service.WaitForStatus('Stopped', [TimeSpan]::FromSeconds(60))
    }
}

function Get-LastWords {
    # What the service said to the event log last.
    Get-WinEvent -FilterHashtable @{ LogName = 'Application'; ProviderName = $ServiceName } -MaxEvents 3 `
        -ErrorAction SilentlyContinue | ForEach-Object { $_.Message }
}
