#!/bin/sh
# Take datacat-server out of launchd again; sessions, settings and logs stay unless --purge is given.
#   sudo ./uninstall.sh [--purge] [--dry-run]
#   ./uninstall.sh --user [--purge] [--dry-run]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR
. "$here/common.sh"

user=0
purge=0
dry_run=0
for argument in "$@"; do
    case $argument in
    --user) user=1 ;;
    --purge) purge=1 ;;
    --dry-run) dry_run=1 ;;
    *) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[ "$(uname -s)" = Darwin ] || die "launchd is the service manager of macOS; on this system use: datacat service uninstall"

if [ "$user" = 1 ]; then
    label=org.datacat.server.agent domain=gui/$(id -u)
    unload "$domain/$label"
    run rm -f "$HOME/Library/LaunchAgents/$label.plist"
    # The folder beside `server` holds the journals of the user's apps: it stays.
    [ "$purge" = 0 ] || run rm -rf "$HOME/Library/Application Support/datacat/server" "$HOME/Library/Logs/datacat"
    exit 0
fi

[ "$(id -u)" = 0 ] || die "a daemon of the system needs root: sudo $0"
label=org.datacat.server
unload "system/$label"
run rm -f "$root/Library/LaunchDaemons/$label.plist" "$newsyslog"
run rm -rf "$home_of_versions"
if [ "$purge" = 1 ]; then
    run rm -rf "$system_data" "$system_logs"
    ! dscl . -read "/Users/$account" >/dev/null 2>&1 || run dscl . -delete "/Users/$account"
    ! dscl . -read "/Groups/$account" >/dev/null 2>&1 || run dscl . -delete "/Groups/$account"
else
    say "kept: $system_data, $system_logs and the account $account; --purge removes them"
fi
