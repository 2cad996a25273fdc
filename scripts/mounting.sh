# For scripts that mount a small file system. Sourced by disk-full.sh and broker-disk-full.sh.

# Runs a script again as root of a user namespace with mounts of its own, if that is what it takes to be allowed to.
#   who_may_mount SCRIPT [ARGUMENT ...]
who_may_mount() {
    local apart=(unshare --user --map-root-user --mount)
    [ -z "${MOUNTS_APART:-}" ] || return 0
    ! unshare --mount true 2>/dev/null || return 0
    ! "${apart[@]}" true 2>/dev/null || MOUNTS_APART=1 exec "${apart[@]}" bash "$@"
}
