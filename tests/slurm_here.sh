#!/bin/bash
# Set up a Slurm of one node on this machine, for the tests of hydra/launcher=submitit_slurm (as root; Debian, Ubuntu).
#
#     bash tests/slurm_here.sh start /tmp/slurm     # install and start it; then export what it prints
#     bash tests/slurm_here.sh stop /tmp/slurm      # end its jobs and its three processes
#
# The plugins of Hydra: pip install hydra-submitit-launcher hydra-joblib-launcher (--target a folder on PYTHONPATH).
set -euo pipefail
what=$1 folder=$(realpath -m "$2")

stop() {
    SLURM_CONF=$folder/slurm.conf timeout 10 scancel --user=root --state=running,pending 2>/dev/null || true
    sleep 1
    for each in slurmd slurmctld munged; do
        [ -s "$folder/$each.pid" ] && kill "$(cat "$folder/$each.pid")" 2>/dev/null || true
    done
}

if [ "$what" = stop ]; then
    stop
    exit
fi
command -v slurmctld munged >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y slurm-wlm munge
stop
rm -rf "$folder"
mkdir -p "$folder/state" "$folder/spool"
chmod 755 "$folder"
dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 2>/dev/null
chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
cat >"$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$(hostname -s)(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
InactiveLimit=0
KillWait=5
MinJobAge=300
OverTimeLimit=0
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=here Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$folder/slurm.conf
slurmctld
slurmd
for _ in $(seq 30); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && break
    sleep 1
done
sinfo
echo "export SLURM_CONF=$SLURM_CONF"
