#!/bin/bash
# testvm.sh - a full Debian VM under QEMU TCG for what the host may lack:
# systemd as PID 1, pure cgroup v2 with all controllers, AppArmor or SELinux.
# `make test-vm` (cargo xtask test-vm) builds it once and boots it per security module.
# Made from Debian packages only (qemu-system-x86, mmdebstrap, e2fsprogs).
#   testvm.sh build                      make (or make again) the disk, kernel and initrd in $TESTVM_DIR (once)
#   testvm.sh run [-l apparmor|selinux] [-g v2|v1|hybrid] [-d IMAGE | -s SHARE [-w]] [-m MIB] [-c CPUS] [-t SECS] [--] COMMAND...
#       boot, run COMMAND (bash -c) with a copy of the ext4 IMAGE, or the directory SHARE (9p,
#       read-only unless -w) at /host, print its output, exit with its status; 124 = no answer in
#       SECS seconds, 125 = /host could not be mounted.
# TESTVM_SUITE (trixie), TESTVM_PACKAGES, TESTVM_MIRROR go into the disk; TESTVM_APPEND is appended to the
# kernel's command line; TESTVM_ACCEL (tcg) is the accelerator, kvm where the machine has it.
# apparmor.service is masked (loading Debian's profiles takes half a minute here): AppArmor itself
# is on, load a test's own profile with apparmor_parser. -l selinux loads the policy, permissive.
# Changes to disks are thrown away (-snapshot); what is to stay goes out over a writable share.
set -euo pipefail
D=${TESTVM_DIR:-/var/tmp/carrack-testvm}; SUITE=${TESTVM_SUITE:-trixie}; MIRROR=${TESTVM_MIRROR:-}
PKGS=systemd,systemd-sysv,dbus,udev,kmod,linux-image-amd64,apparmor,selinux-basics,selinux-policy-default,policycoreutils,initramfs-tools,iproute2,procps,util-linux,e2fsprogs,busybox-static,uidmap,jq,passwd,dbus-user-session,libpam-systemd,criu,iptables${TESTVM_PACKAGES:+,$TESTVM_PACKAGES}

tree_setup() { # $1 = root tree
  local r=$1
  cat >"$r/usr/local/sbin/testvm-agent" <<'A'
#!/bin/bash
# runs the command the host put on the virtio port, sends back output, then the status line
exec 2>/dev/console
mkdir -p /host
mount_host() { # the disk when there is one, else the share; a device may come late
  local try disk_options=noatime
  [ ! -d /sys/fs/selinux ] || disk_options+=,context=system_u:object_r:bin_t:s0
  for try in 1 2 3 4 5 6 7 8 9 10; do
    if grep -q testvm.host=disk /proc/cmdline; then mount -o "$disk_options" /dev/vdb /host
    else modprobe -a 9pnet_virtio 9p; mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,cache=mmap host /host
    fi && return 0
    sleep 1
  done
  return 1
}
p=/dev/virtio-ports/testvm
exec 3<>"$p"
IFS= read -r n <&3                    # length of the command in bytes
cmd=$(head -c "$n" <&3)
if mount_host; then
  cd /host; bash -c "$cmd" </dev/null 2>&1 | cat >&3; status=${PIPESTATUS[0]}
else
  echo "testvm: /host could not be mounted" >&3; status=125
fi
printf '\n@@testvm-status %d\n' "$status" >&3
sync; systemctl --force --force poweroff
A
  chmod 755 "$r/usr/local/sbin/testvm-agent"
  cat >"$r/etc/systemd/system/testvm-agent.service" <<'A'
[Unit]
Description=run the host's command
After=local-fs.target dev-virtio\x2dports-testvm.device
Wants=dev-virtio\x2dports-testvm.device
DefaultDependencies=yes
[Service]
ExecStart=/usr/local/sbin/testvm-agent
Delegate=yes
TasksMax=infinity
[Install]
WantedBy=multi-user.target
A
  mkdir -p "$r/etc/systemd/system/multi-user.target.wants"
  ln -sf ../testvm-agent.service "$r/etc/systemd/system/multi-user.target.wants/testvm-agent.service"
  for u in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service systemd-timesyncd.service getty@tty1.service serial-getty@ttyS0.service selinux-autorelabel.service apparmor.service auditd.service audit-rules.service systemd-logind.service systemd-binfmt.service modprobe@drm.service modprobe@efi_pstore.service modprobe@configfs.service modprobe@fuse.service systemd-pstore.service systemd-journal-flush.service systemd-hostnamed.socket systemd-tpm2-setup.service systemd-tpm2-setup-early.service systemd-pcrphase.service systemd-udev-load-credentials.service; do
    ln -sf /dev/null "$r/etc/systemd/system/$u"; done
  echo "/dev/vda / ext4 defaults,noatime 0 0" >"$r/etc/fstab"
  echo testvm >"$r/etc/hostname"; : >"$r/etc/machine-id"
  [ -f "$r/etc/selinux/config" ] && sed -i 's/^SELINUX=.*/SELINUX=permissive/' "$r/etc/selinux/config" || true
  rm -f "$r/.autorelabel"
  # types for tests of labels; loaded here, where it takes seconds
  cp "$(dirname "$0")/policy.cil" "$r/root/ckt.cil"
  [ ! -d "$r/etc/selinux/default" ] || chroot "$r" semodule -n -s default -X 400 -i /root/ckt.cil
  # label the tree for SELinux here (xattrs; mke2fs -d keeps them), so no relabel boot is needed
  local fc=/etc/selinux/default/contexts/files/file_contexts
  [ -f "$r$fc" ] && chroot "$r" setfiles -F "$fc" / >/dev/null 2>&1 || true
}

build() {
  local t=$D/tree
  mkdir -p "$D"; rm -rf "$t"
  # a small initrd: only the modules this VM's root needs
  mmdebstrap --variant=minbase --include="$PKGS" \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list >"$1/etc/initramfs-tools/conf.d/testvm" && printf "%s\n" virtio_blk virtio_mmio virtio_pci ext4 >"$1/etc/initramfs-tools/modules.testvm"' \
    --customize-hook='cp "$1/etc/initramfs-tools/modules.testvm" "$1/etc/initramfs-tools/modules" && chroot "$1" update-initramfs -u -k all' \
    "$SUITE" "$t" ${MIRROR:+"$MIRROR"}
  tree_setup "$t"
  pack "$t"
}
pack() {
  cp "$1"/boot/vmlinuz-* "$D/vmlinuz"; cp "$1"/boot/initrd.img-* "$D/initrd"
  rm -f "$D/root.img"; truncate -s 4G "$D/root.img"
  mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 -d "$1" "$D/root.img"
}

run() {
  local lsm=apparmor cgroup=v2 disk= share=. mem=2048 cpus=2 secs=300 ro=on
  while [ $# -gt 0 ]; do case $1 in
    -l) lsm=$2; shift 2;; -g) cgroup=$2; shift 2;; -d) disk=$2; shift 2;; -s) share=$2; shift 2;; -m) mem=$2; shift 2;; -c) cpus=$2; shift 2;;
    -t) secs=$2; shift 2;; -w) ro=off; shift;; --) shift; break;; *) break;; esac; done
  local lsmarg
  case $lsm in apparmor) lsmarg="apparmor=1 security=apparmor";; selinux) lsmarg="selinux=1 security=selinux enforcing=0";; *) echo "-l apparmor|selinux" >&2; exit 2;; esac
  local cgarg legacy="systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
  case $cgroup in v2) cgarg="systemd.unified_cgroup_hierarchy=1";; v1) cgarg="$legacy systemd.legacy_systemd_cgroup_controller=1";;
    hybrid) cgarg="$legacy systemd.legacy_systemd_cgroup_controller=0";; *) echo "-g v2|v1|hybrid" >&2; exit 2;; esac
  local host
  if [ -n "$disk" ]; then
    cgarg+=" testvm.host=disk"
    host=(-drive "file=$disk,if=none,id=h,format=raw,snapshot=on,cache=unsafe" -device virtio-blk-pci,drive=h)
  else
    host=(-fsdev "local,id=h,path=$(realpath "$share"),security_model=none,readonly=$ro,multidevs=remap" -device virtio-9p-pci,fsdev=h,mount_tag=host)
  fi
  local w; w=$(mktemp -d); trap "rm -rf '$w'" EXIT
  qemu-system-x86_64 -M q35 -accel "${TESTVM_ACCEL:-tcg,thread=multi}" -cpu max -smp "$cpus" -m "$mem" -nodefaults -no-user-config -display none -no-reboot \
    -kernel "$D/vmlinuz" -initrd "$D/initrd" \
    -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.show_status=0 mitigations=off psi=1 $cgarg $lsmarg ${TESTVM_APPEND:-}" \
    -serial "file:$w/console" -drive "file=$D/root.img,if=none,id=r,format=raw,snapshot=on,cache=unsafe" -device virtio-blk-pci,drive=r \
    "${host[@]}" \
    -device virtio-rng-pci -device virtio-serial-pci -chardev "socket,id=c,path=$w/s,server=on,wait=off" -device virtserialport,chardev=c,name=testvm &
  local q=$!
  python3 - "$w/s" "$secs" "$q" "$*" <<'P'
import os, socket, sys, time
path, secs, pid, cmd = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
end = time.time() + secs
s = socket.socket(socket.AF_UNIX)
while True:
    try: s.connect(path); break
    except OSError:
        if time.time() > end: sys.exit(124)
        time.sleep(.05)
s.sendall(b"%d\n%s" % (len(cmd), cmd))
buf, mark = b"", b"\n@@testvm-status "
while True:
    s.settimeout(max(.1, end - time.time()))
    try: d = s.recv(65536)
    except OSError: d = b""
    if not d:
        sys.stdout.buffer.write(buf); sys.stdout.flush(); sys.exit(124)
    buf += d
    i = buf.find(mark)
    if i >= 0 and buf.endswith(b"\n", i + len(mark)):
        sys.stdout.buffer.write(buf[:i]); sys.stdout.flush()
        sys.exit(int(buf[i + len(mark):].split()[0]) & 255)
    if i < 0 and len(buf) > 64:
        sys.stdout.buffer.write(buf[:-64]); sys.stdout.flush(); buf = buf[-64:]
P
  local rc=$?
  [ $rc = 0 ] || [ $rc -lt 124 ] || { echo "testvm: the end of the guest's console:"; tail -n 60 "$w/console"; } >&2
  return $rc
}
case ${1:-} in
  build) build;; pack) tree_setup "$2"; pack "$2";;
  run) shift
    set +e; ( set +e; run "$@"; rc=$?; p=$(jobs -p); [ $rc = 124 ] && { kill $p 2>/dev/null; }; wait $p 2>/dev/null; exit $rc ); exit $?;;
  *) sed -n '2,18p' "$0"; exit 2;;
esac
