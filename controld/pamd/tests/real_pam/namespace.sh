#!/usr/bin/env bash
# Runs a program among accounts and PAM services of its own: namespace.sh DIR PROGRAM ARGUMENTS…
# To be run in a mount namespace of its own (unshare --mount --propagation private). DIR holds `horcrux`, the service file
# that is shipped, `module.so`, and gets everything that is made here.
set -euo pipefail
dir=$1
shift

# The password is PASSWORD of host.rs.
# shellcheck disable=SC2016
hash='$6$horcruxtest$MHGtb55GBiDGOn69v9BxR71ok804H6RS1wZUH18FfCMI6r4TEhOTVu9Mv.Udi0m0hXbQ1xGpCrAiUe90lQg4G/'

cp -a /etc/passwd /etc/shadow /etc/group "$dir"
cp -a /etc/pam.d "$dir/pam.d"

# account NAME UID HASH LAST-CHANGE MAX-DAYS EXPIRES, the last three as in shadow(5)
account() {
    echo "$1:x:$2:$2::/nonexistent:/bin/false" >>"$dir/passwd"
    echo "$1:x:$2:" >>"$dir/group"
    echo "$1:$3:$4:0:$5:7::$6:" >>"$dir/shadow"
}
account hxgood 7001 "$hash" 19000 99999 ''
account hxgood2 7002 "$hash" 19000 99999 ''
account hxexpired 7003 "$hash" 19000 99999 19001
account hxlocked 7004 "!$hash" 19000 99999 ''
account hxmustchange 7005 "$hash" 0 99999 ''
account hxoldpw 7006 "$hash" 19000 30 ''
account hxnull 7007 '' 19000 99999 ''
account hxhang 7008 "$hash" 19000 99999 ''

service() {
    cat >"$dir/pam.d/$1"
}
service horcrux <<P
auth    required pam_unix.so
account required pam_unix.so
P
service hx-nullok <<P
auth    required pam_unix.so nullok
account required pam_unix.so
P
service hx-shipped <"$dir/horcrux"
service hx-hang <<P
auth    required pam_exec.so quiet $dir/hang
auth    required pam_unix.so
account required pam_unix.so
P
service hx-rhost <<P
auth    required pam_exec.so quiet $dir/rhost
auth    required pam_unix.so
account required pam_unix.so
P
service hx-more <<P
auth    required pam_unix.so
auth    required $dir/module.so ask
account required pam_unix.so
P
service hx-rename <<P
auth    required pam_unix.so
auth    required $dir/module.so rename
account required pam_unix.so
P
service other <<P
auth    required pam_permit.so
account required pam_permit.so
P

mkdir "$dir/hanging"
# Ends when the test removes its directory, or after two minutes.
cat >"$dir/hang" <<S
#!/bin/sh
[ "\$PAM_USER" = hxhang ] || exit 0
: >"$dir/hanging/\$\$"
n=0
while [ -d "$dir/hanging" ] && [ \$n -lt 120 ]; do
    sleep 1
    n=\$((n + 1))
done
S
cat >"$dir/rhost" <<'S'
#!/bin/sh
[ "$PAM_RHOST" = 203.0.113.7 ]
S
chmod 755 "$dir" "$dir/hang" "$dir/rhost"

for file in passwd shadow group pam.d; do
    mount --bind "$dir/$file" "/etc/$file"
done

# Where a core file would go, were there one.
ulimit -c unlimited
cd "$dir"
if [[ -n ${ACTIVATED:-} ]]; then
    # As systemd does it: the socket is descriptor 3, and meant for this process.
    exec 3<&0 0</dev/null
    export LISTEN_FDS=1 LISTEN_PID=$$
fi
# As the unit has it, on a host whose shadow file nobody may read without a capability.
if [[ -n ${CAPABILITIES:-} ]]; then
    chmod 0 "$dir/shadow"
    exec setpriv --bounding-set "-all,$CAPABILITIES" --inh-caps -all --no-new-privs "$@"
fi
exec "$@"
