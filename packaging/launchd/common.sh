# What install.sh and uninstall.sh share. DATACAT_ROOT puts everything below another folder, DATACAT_POLL_S is how often to look (60 times); both are for trying the scripts.
# shellcheck shell=sh disable=SC2034

root=${DATACAT_ROOT:-}
poll_s=${DATACAT_POLL_S:-1}
account=_datacat
home_of_versions=$root/usr/local/lib/datacat
system_data="$root/Library/Application Support/datacat"
system_logs=$root/Library/Logs/datacat
newsyslog=$root/etc/newsyslog.d/datacat.conf

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

say() {
    echo "$*"
}

# run COMMAND...: shows it, and does it unless --dry-run was given.
run() {
    say "+ $*"
    [ "${dry_run:-0}" = 1 ] || "$@"
}

# Stop the job when launchd has it, and wait until it is gone: bootstrap right behind bootout would fail.
unload() {
    launchctl print "$1" >/dev/null 2>&1 || return 0
    run launchctl bootout "$1" || true
    [ "${dry_run:-0}" = 1 ] && return 0
    tries=0
    while launchctl print "$1" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -le 60 ] || die "launchd did not let go of $1 in time; look at: launchctl print $1"
        sleep "$poll_s"
    done
}
