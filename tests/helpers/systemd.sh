#!/bin/sh
# The inside of helpers/systemd.py: namespaces of its own are made already, and end with it. What it mounts nobody else
# sees, and the disk is read-only, so that nothing which systemd does stays.
set -e
clone=$1 packages=$2 prefix=$3 version=$4

mount --make-rprivate /
mount -o remount,bind,ro /
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys  # systemd would raise fs.file-max of the whole machine
mount -t tmpfs tmpfs /opt
mkdir -p /opt/tabi/bin /opt/tabi/src /opt/tabi/lib /opt/tabi/packaging /opt/tabi/python
mount --bind "$prefix" /opt/tabi/python  # it may lie in a home, which the service does not see
mount --bind "$clone/src" /opt/tabi/src
mount --bind "$packages" /opt/tabi/lib
mount --bind "$clone/packaging" /opt/tabi/packaging
printf '#!/bin/sh\nexec /opt/tabi/python/bin/python%s -m tabi "$@"\n' "$version" > /opt/tabi/bin/tabi
chmod 755 /opt/tabi/bin/tabi

for directory in /run /var/tmp /var/lib; do
    mount -t tmpfs tmpfs "$directory"
done
mkdir -p /run/etc/upper /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
mount -t tmpfs tmpfs /etc/systemd/system  # of this machine's services none is started

# as packaging/README.md has it
cp /opt/tabi/packaging/tabi.service /opt/tabi/packaging/tabi.socket /etc/systemd/system/
install -D -m 644 /opt/tabi/packaging/sysusers.conf /etc/sysusers.d/tabi.conf
systemd-sysusers /etc/sysusers.d/tabi.conf
install -d -m 755 /etc/tabi
install -m 640 -g tabi-config /dev/null /etc/tabi/tabi.toml

# what is missing here: the rest of a system, a journal, and an installed tabi
for unit in tabi.service tabi.socket; do
    mkdir "/etc/systemd/system/$unit.d"
    printf '[Unit]\nDefaultDependencies=no\nWants=\nAfter=\n' > "/etc/systemd/system/$unit.d/alone.conf"
done
cat > /etc/systemd/system/tabi.service.d/here.conf <<'END'
[Service]
Environment=PYTHONPATH=/opt/tabi/src:/opt/tabi/lib LD_LIBRARY_PATH=/opt/tabi/python/lib
StandardOutput=append:/run/sessions
StandardError=append:/run/diagnostics
END
printf '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n' > /etc/systemd/system/nothing.target

mkdir /run/dev
mount -t tmpfs -o mode=755 tmpfs /run/dev
for node in null zero full random urandom tty; do
    cp -a "/dev/$node" /run/dev/
done
mkdir /run/dev/shm /run/dev/pts /run/dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666 devpts /run/dev/pts
ln -s pts/ptmx /run/dev/ptmx
ln -s /proc/self/fd /run/dev/fd
touch /run/dev/console
mount --rbind /run/dev /dev
umount -R /sys/fs/cgroup 2> /dev/null || true  # a mixture of both versions, perhaps; of version 2 we see our own part
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=1777 tmpfs /tmp
cd /
container=tabi-test exec "$(command -v /lib/systemd/systemd /usr/lib/systemd/systemd | head -n 1)" \
    --system --unit=nothing.target --show-status=no
