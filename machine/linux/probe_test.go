// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// probe runs inside a machine, as its root, and does one thing there. Its exit
// status says whether that went well; it prints what it got, or the error.
func probe(args []string) int {
	out, err := try(args)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Print(out)
	return 0
}

func try(args []string) (string, error) {
	arg := func(i int) string { return args[min(i, len(args)-1)] }
	switch args[0] {
	case "read":
		data, err := os.ReadFile(arg(1))
		return string(data), err
	case "list":
		entries, err := os.ReadDir(arg(1))
		return fmt.Sprint(entries), err
	case "write":
		return "", os.WriteFile(arg(1), []byte(arg(2)), 0o644)
	case "put": // into what is there already
		f, err := os.OpenFile(arg(1), os.O_WRONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = f.WriteString(arg(2))
		return "", errors.Join(err, f.Close())
	case "truncate":
		return "", os.Truncate(arg(1), 0)
	case "chmod":
		return "", os.Chmod(arg(1), 0o777)
	case "chown":
		return "", os.Chown(arg(1), 0, 0)
	case "owner":
		var st unix.Stat_t
		err := unix.Stat(arg(1), &st)
		return fmt.Sprintf("%d:%d", st.Uid, st.Gid), err
	case "hostname":
		return os.Hostname()
	case "sethostname":
		return "", unix.Sethostname([]byte(arg(1)))
	case "mkdir":
		return "", os.Mkdir(arg(1), 0o755)
	case "leave":
		cmd := exec.Command(agentPath, "probe", "sleep")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return "", cmd.Start()
	case "sleep":
		time.Sleep(time.Hour)
		return "", nil
	case "limited":
		out, err := exec.Command(agentPath, append([]string{"probe"}, args[1:]...)...).CombinedOutput()
		return string(out), err
	case "eat":
		return "", eat(arg(1))
	case "spin":
		return spin()
	}
	if out, known, err := tryFile(args[0], arg); known {
		return out, err
	}
	return attack(args[0], arg)
}

// attack is what only the host's root may do.
func attack(what string, arg func(int) string) (string, error) {
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return "", err
	}
	call := func(number uintptr, a ...uintptr) error {
		a = append(a, 0, 0, 0, 0, 0, 0)
		if _, _, errno := unix.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
			return errno
		}
		return nil
	}
	switch what {
	case "mknod-block":
		return "", unix.Mknod("/dev/shm/disk", unix.S_IFBLK|0o600, device(arg(1)))
	case "mknod-char":
		return "", unix.Mknod("/dev/shm/memory", unix.S_IFCHR|0o600, device(arg(1)))
	case "mount":
		return "", unix.Mount(arg(2), "/dev/shm", arg(1), 0, "")
	case "mount-cgroup":
		return "", unix.Mount("cgroup", "/dev/shm", "cgroup", 0, arg(1))
	case "remount":
		return "", unix.Mount("", arg(1), "", unix.MS_REMOUNT|unix.MS_BIND, "")
	case "load-module":
		return "", call(unix.SYS_INIT_MODULE, uintptr(unsafe.Pointer(empty)), 0, uintptr(unsafe.Pointer(empty)))
	case "settime":
		now := unix.NsecToTimeval(time.Now().UnixNano())
		return "", unix.Settimeofday(&now)
	case "iopl":
		return "", call(unix.SYS_IOPL, 3)
	case "swapon":
		return "", call(unix.SYS_SWAPON, uintptr(unsafe.Pointer(empty)), 0)
	case "kexec":
		return "", call(unix.SYS_KEXEC_LOAD)
	case "clear-kernel-log":
		return "", call(unix.SYS_SYSLOG, 5)
	case "open-by-handle":
		kind, err := strconv.Atoi(arg(1))
		if err != nil {
			return "", err
		}
		handle, err := hex.DecodeString(arg(2))
		if err != nil {
			return "", err
		}
		dir, err := unix.Open("/var/lib/kubelet", unix.O_RDONLY, 0)
		if err != nil {
			return "", err
		}
		_, err = unix.OpenByHandleAt(dir, unix.NewFileHandle(int32(kind), handle), unix.O_RDONLY)
		return "", err
	case "kill":
		pid, err := strconv.Atoi(arg(1))
		if err != nil {
			return "", err
		}
		return "", unix.Kill(pid, unix.SIGKILL)
	}
	return "", fmt.Errorf("no probe %s", what)
}

func device(text string) int {
	var major, minor uint32
	_, _ = fmt.Sscanf(text, "%d:%d", &major, &minor)
	return int(unix.Mkdev(major, minor))
}

func eat(mebibytes string) error {
	n, err := strconv.Atoi(mebibytes)
	if err != nil {
		return err
	}
	data, err := unix.Mmap(-1, 0, n<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	for i := 0; i < len(data); i += 4096 {
		data[i] = 1
	}
	return nil
}

// spin keeps four threads busy for a second and tells the time they were given.
func spin() (string, error) {
	until := time.Now().Add(time.Second)
	for range 4 {
		go func() {
			for time.Now().Before(until) {
			}
		}()
	}
	time.Sleep(time.Until(until))
	var usage unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).String(), err
}
