#!/bin/sh
# Make datacat-server a service of launchd. Again: upgrades it; what does not come up is taken back.
#   sudo ./install.sh [--from WHAT] [--python PROGRAM] [--dry-run]
#       a daemon of the system, as the user _datacat, in /usr/local/lib/datacat;
#       WHAT: what pip installs, default this checkout: a wheel, a folder, a requirement such as 'datacat[server]'
#   ./install.sh --user --program PATH [--dry-run]
#       an agent of this user, while he is logged in; PATH: the datacat-server that he has
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/common.sh"

from="$here/../..[server]"
python=python3
program=
user=0
dry_run=0
while [ $# -gt 0 ]; do
    case $1 in
    --from) from=${2:?what pip shall install}; shift ;;
    --python) python=${2:?the Python to use}; shift ;;
    --program) program=${2:?the path of datacat-server}; shift ;;
    --user) user=1 ;;
    --dry-run) dry_run=1 ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ "$(uname -s)" = Darwin ] || die "launchd is the service manager of macOS; on this system use: datacat service install"

make_account() {
    dscl . -read "/Users/$account" >/dev/null 2>&1 && return
    id=300    # below 500 is hidden at the login window; 200 to 299 are Apple's own
    while dscl . -search /Users UniqueID "$id" | grep -q . || dscl . -search /Groups PrimaryGroupID "$id" | grep -q .; do
        id=$((id + 1))
        [ "$id" -lt 400 ] || die "no number from 300 to 399 is free for the account $account; make the account by hand"
    done
    run dscl . -create "/Groups/$account"
    run dscl . -create "/Groups/$account" PrimaryGroupID "$id"
    run dscl . -create "/Groups/$account" Password '*'
    run dscl . -create "/Users/$account"
    run dscl . -create "/Users/$account" UniqueID "$id"
    run dscl . -create "/Users/$account" PrimaryGroupID "$id"
    run dscl . -create "/Users/$account" RealName "datacat server"
    run dscl . -create "/Users/$account" NFSHomeDirectory /var/empty
    run dscl . -create "/Users/$account" UserShell /usr/bin/false
    run dscl . -create "/Users/$account" Password '*'
    run dscl . -create "/Users/$account" IsHidden 1
}

# A virtual environment cannot be moved, so each version has its own, and the link `current` names the one that runs.
make_version() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "$python is not Python 3.11 or later; name another one: --python /path/to/python3"
    version=$(date +%Y%m%d-%H%M%S)-$$
    run mkdir -p "$home_of_versions"
    run "$python" -m venv "$home_of_versions/$version"
    run "$home_of_versions/$version/bin/python" -m pip install --quiet --disable-pip-version-check "$from" || {
        rm -rf "${home_of_versions:?}/$version"
        die "pip could not install $from; what runs now was not touched"
    }
}

make_folders() {
    run mkdir -p "$system_data/server" "$system_logs"
    # The account may write its data and its logs, not the settings.
    run chown root:wheel "$system_data"
    run chmod 755 "$system_data"
    run chown "$account:$account" "$system_data/server" "$system_logs"
    run chmod 700 "$system_data/server"
    run chmod 750 "$system_logs"
    [ -e "$system_data/server.toml" ] || [ "$dry_run" = 1 ] || cat >"$system_data/server.toml" <<'END'
# Settings of datacat-server, one `name = value` a line; `datacat-server --help` lists them all. After a change:
#   sudo launchctl kickstart -k system/org.datacat.server
#port = 8080
#retention_days = 30
END
}

load() {
    run rm -f "$port_file"
    run launchctl bootstrap "$domain" "$plist"
    run launchctl enable "$domain/$label"
    [ "$dry_run" = 1 ] && return
    tries=0
    while ! [ -s "$port_file" ]; do    # the server writes it when it serves
        tries=$((tries + 1))
        [ "$tries" -le 60 ] || return 1
        sleep "$poll_s"
    done
    say "datacat-server serves on port $(cat "$port_file")"
}

install_system() {
    [ "$(id -u)" = 0 ] || die "a daemon of the system needs root: sudo $0"
    label=org.datacat.server domain=system
    plist=$root/Library/LaunchDaemons/$label.plist
    port_file=$system_data/server/port
    make_version
    make_account
    make_folders
    before=$(readlink "$home_of_versions/current" 2>/dev/null || true)
    unload "$domain/$label"
    run ln -sfn "$version" "$home_of_versions/current"
    run mkdir -p "$(dirname "$plist")"
    run cp "$here/$label.plist" "$plist"
    run chown root:wheel "$plist"
    run chmod 644 "$plist"
    run mkdir -p "$root/etc/newsyslog.d"
    run cp "$here/newsyslog.conf" "$newsyslog"
    if ! load; then
        tail -n 5 "$system_logs/stderr.log" >&2 2>/dev/null || true
        unload "$domain/$label"
        [ -n "$before" ] || die "the server did not come up; its last lines stand above and in $system_logs"
        ln -sfn "$before" "$home_of_versions/current"
        rm -rf "${home_of_versions:?}/$version"
        load || die "neither the new nor the old version comes up; see $system_logs"
        die "the new version did not come up; the old one runs again"
    fi
    # The version before this one stays for a way back; older ones go.
    for old in "$home_of_versions"/*-*; do
        case ${old##*/} in "$version" | "$before") ;; *) run rm -rf "$old" ;; esac
    done
}

xml() {    # as text of an element, and as the right side of a sed command
    printf '%s' "$1" | sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g' -e 's/[&|\\]/\\&/g'
}

install_agent() {
    [ "$(id -u)" != 0 ] || [ -n "$root" ] || die "an agent belongs to a user: run this without sudo"
    case $program in /*) ;; *) die "name the server with its whole path: --program /path/to/datacat-server" ;; esac
    [ -x "$program" ] || die "there is no program $program"
    label=org.datacat.server.agent domain=gui/$(id -u)
    plist=$HOME/Library/LaunchAgents/$label.plist
    port_file="$HOME/Library/Application Support/datacat/server/port"
    run mkdir -p "$HOME/Library/LaunchAgents" "$HOME/Library/Logs/datacat" "$(dirname "$port_file")"
    run chmod 700 "$(dirname "$port_file")"
    unload "$domain/$label"
    say "+ write $plist"
    [ "$dry_run" = 1 ] ||
        sed -e "s|@PROGRAM@|$(xml "$program")|g" -e "s|@HOME@|$(xml "$HOME")|g" "$here/$label.plist" >"$plist"
    load || die "the server did not come up; see $HOME/Library/Logs/datacat"
}

if [ "$user" = 1 ]; then install_agent; else install_system; fi
