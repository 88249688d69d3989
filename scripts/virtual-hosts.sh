# Hosts inside of this machine, for tests over several of them; to be sourced after common.sh, not run.
#
# A host has a name, a network interface, shared memory, System V objects and a /tmp of its own (network, UTS, IPC and
# mount namespaces). All of them live in one PID namespace, so that nothing outlives the script, however it ends.
# The folder $shared is the same on all hosts. Needs root, or what root of a container usually lacks: see why_no_hosts.

hosts_network=10.77.0

# What keeps us from having hosts; nothing if we can.
why_no_hosts() {
  (( $(id -u) == 0 )) || { echo "namespaces with networks need root"; return; }
  for program in unshare nsenter setpriv ip; do have $program || { echo "there is no $program"; return; }; done
  unshare --mount --net --uts --ipc --pid --fork --mount-proc \
    sh -c 'ip link add name hub type bridge && ip link add name here type veth peer name there' >/dev/null 2>&1 ||
    echo "this machine lets root make no namespaces, bridges or veth pairs (an unprivileged container?)"
}

# Runs the calling script again, with the same arguments, where hosts can be started; returns its status. $shared and
# all processes are gone afterwards.
run_among_hosts() {  # ARGUMENT...
  local status=0
  shared=$(mktemp -d /var/tmp/tessera-hosts-XXXXXX)
  trap 'rm -rf "${shared:-}"' EXIT
  shared=$shared setpriv --pdeathsig KILL unshare --mount --net --uts --ipc --pid --fork --kill-child --mount-proc "$0" "$@" || status=$?
  rm -rf "$shared"
  unset shared
  return $status
}
among_hosts() { [[ -n ${shared:-} ]]; }

# First of all, inside: the head, which is where the script itself runs.
start_network() {
  chmod 755 "$shared"
  hostname head
  ip link set lo up
  ip link add name hub type bridge
  ip address add $hosts_network.254/24 dev hub
  ip link set hub up
  { echo "127.0.0.1 localhost"; echo "$hosts_network.254 head"; } >"$shared/hosts"
  mount --bind "$shared/hosts" /etc/hosts
}

# A host's own /tmp would hide a clone or a build that lies there.
keep_folders() {  # FOLDER...: prints commands that bring them back after /tmp is mounted
  local folder number=0
  for folder in "$@"; do
    [[ $folder == /tmp/* ]] || continue
    number=$((number + 1))
    mkdir -p "$shared/keep.$number"
    mount --bind "$folder" "$shared/keep.$number"
    echo "mkdir -p '$folder' && mount --bind '$shared/keep.$number' '$folder' &&"
  done
}

declare -A host_process host_count=([all]=0)
start_host() {  # NAME
  local name=$1 number restore
  host_count[all]=$((host_count[all] + 1))
  number=${host_count[all]}
  echo "$hosts_network.$number $name" >>"$shared/hosts"
  restore=$(keep_folders "$root" "$build")
  unshare --net --uts --ipc --mount sh -c "hostname $name && mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /tmp &&
    $restore touch '$shared/started.$name' && exec sleep infinity" &
  host_process[$name]=$!
  wait_for 10 test -e "$shared/started.$name" || die "host $name did not start"
  ip link add name "to-$name" type veth peer name eth0 netns "${host_process[$name]}"
  ip link set "to-$name" master hub up
  on_host "$name" sh -c "ip link set lo up; ip address add $hosts_network.$number/24 dev eth0; ip link set eth0 up"
}

on_host() {  # NAME COMMAND...
  local name=$1
  shift
  nsenter --target "${host_process[$name]}" --net --uts --ipc --mount --wd="$PWD" "$@"
}

cut_link() { ip link set "to-$1" down; }   # NAME
mend_link() { ip link set "to-$1" up; }    # NAME

wait_for() {  # SECONDS COMMAND...: until the command succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    (( SECONDS < end )) || return 1
    sleep 0.2
  done
}
