# The first process in a node's mount and pid namespace: when it dies, the kernel ends all others and drops all
# mounts. $1 is the stack's folder.
set -e

# Nothing below is of the host any more. The folder is reached as our working directory, wherever it lies.
cd "$1"
mount -t tmpfs tmpfs /run
mkdir -p /run/segue /run/lib /run/work
mount --no-canonicalize --bind . /run/segue
mount -t tmpfs tmpfs /var/log
mount -t overlay overlay -o lowerdir=/var/lib,upperdir=/run/lib,workdir=/run/work /var/lib
for part in containerd kubelet; do
    mkdir -p "/run/segue/node/lib/$part" "/var/lib/$part"
    mount --bind "/run/segue/node/lib/$part" "/var/lib/$part"
done

# The kubelet sets these for the whole machine unless it finds them as it wants them: let it find them so.
show() {
    mkdir -p "/run/sysctl/${1%/*}"
    echo "$2" > "/run/sysctl/$1"
    [ ! -e "/proc/sys/$1" ] || mount --bind "/run/sysctl/$1" "/proc/sys/$1"
}
show vm/overcommit_memory 1
show vm/panic_on_oom 0
show kernel/panic 10
show kernel/panic_on_oops 1
show kernel/keys/root_maxkeys 1000000
show kernel/keys/root_maxbytes 25000000

touch /run/node-is-ready
# Ignored, an orphan's end needs no waiting for: this process has nothing more to do.
trap '' CHLD
exec sleep infinity
