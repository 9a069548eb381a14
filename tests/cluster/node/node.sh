#!/bin/bash
# The first process of the node's own mount, process and network namespaces: makes them fit for a node, then starts
# what ../configs.py put into $STATE/commands, in an order in which nothing waits in vain. When this process ends, the
# kernel ends all that runs here.
set -u
STATE=$1 LINK_ADDRESS=$2 HOST_ADDRESS=$3
cd /

mount --make-rshared /
for folder in /run /var/log /var/lib/cni; do mount -t tmpfs tmpfs "$folder"; done
mkdir -p /run/netns /run/lock /run/etcd
mount --bind "$STATE/kubelet" /var/lib/kubelet
mount --make-shared /var/lib/kubelet

# The kubelet sets these for the whole kernel, or refuses to start. It is shown files that say what it wants to read, so
# that the machine's own settings stay as they are.
mkdir /run/sysctl
while read -r name value; do
    file=/run/sysctl/${name//\//_}
    echo "$value" >"$file"
    mount --bind "$file" "/proc/sys/$name"
done <<'SETTINGS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS

ip link set lo up
until ip link show node0 >/dev/null 2>&1; do sleep 0.05; done
ip addr add "$LINK_ADDRESS" dev node0
ip link set node0 up
ip route add default via "$HOST_ADDRESS"
echo 1 >/proc/sys/net/ipv4/ip_forward

start() { "$STATE/commands/$1" >"$STATE/log/$1.log" 2>&1 & }
healthy() { curl -fsS -m 2 --cacert "$STATE/pki/ca.crt" "https://${LINK_ADDRESS%/*}:6443/readyz" >/dev/null 2>&1; }
import() {
    for image in "$STATE"/images/*.tar; do
        until ctr -n k8s.io images import "$image" >>"$STATE/log/import.log" 2>&1; do sleep 0.2; done
    done
    touch "$STATE/imported"
}

start etcd
start containerd
start kube-apiserver
import &
until healthy; do sleep 0.1; done
for part in kube-controller-manager kube-scheduler kubelet kube-proxy; do start "$part"; done

trap 'exit 0' TERM
while :; do wait -n; sleep 0.5; done
