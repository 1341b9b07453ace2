#!/bin/sh
# What becomes a real node: called by real.py, in new mount, pid, cgroup and uts namespaces and the node's network namespace.
#   node.sh FOLDER NAME ADDRESS IMAGES START VERBOSITY BINARIES
# FOLDER has kubelet.yaml, kubelet.conf, kube-proxy.yaml, kube-proxy.conf, and takes the logs; BINARIES kubelet, kube-proxy, cri.
set -eu
folder=$1 name=$2 address=$3 images=$4 start=$5 verbosity=$6 binaries=$7
mount --make-rprivate /
hostname "$name"

# cgroup file systems whose root is this namespace's
awk '$(NF-2) == "cgroup" {print $5}' /proc/self/mountinfo | while read -r hierarchy; do
    options=$(awk -v at="$hierarchy" '$5 == at {print $NF}' /proc/self/mountinfo | tr , '\n' | grep -vx -e rw -e ro -e xattr | paste -sd,)
    case $options in name=*) options=none,$options ;; esac
    umount "$hierarchy"
    mount -t cgroup -o "$options" cgroup "$hierarchy"
done

# places that the kubelet writes to and cannot be told otherwise
mkdir -p "$folder/lib" "$folder/log" "$folder/libexec"
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
mkdir -p /var/lib/kubelet
mount --bind /var/lib/kubelet /var/lib/kubelet
mount -t tmpfs tmpfs /run

# kernel settings as the kubelet wants them, shown to it and changed for nobody
mkdir /run/kernel
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1; do
    file=/run/kernel/$(echo "${setting%=*}" | tr / .)
    echo "${setting#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${setting%=*}"
done
echo "nameserver 127.0.0.1" >/run/resolv.conf
mount --bind /run/resolv.conf "$(readlink -f /etc/resolv.conf)"
mount --make-rshared /

"$binaries/cri" -socket /run/cri.sock -images "$images" -start "$start" -root "$folder/lib" >"$folder/cri.log" 2>&1 &
[ -e "$folder/kube-proxy.conf" ] &&
    "$binaries/kube-proxy" --config="$folder/kube-proxy.yaml" --v="$verbosity" >"$folder/kube-proxy.log" 2>&1 &
for try in 1 2 3 4 5 6 7 8 9 10; do [ -S /run/cri.sock ] || sleep 0.1; done
"$binaries/kubelet" --config="$folder/kubelet.yaml" --kubeconfig="$folder/kubelet.conf" --hostname-override="$name" \
    --node-ip="$address" --v="$verbosity" >"$folder/kubelet.log" 2>&1
