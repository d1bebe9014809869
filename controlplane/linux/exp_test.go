package linux

import (
	"os"
	"testing"
	"time"
)

func TestExp(t *testing.T) {
	r := newRig(t)
	spec := r.spec("exp")
	begin := time.Now()
	r.apply(spec)
	r.until("exp", "ready", ready)
	t.Log("ready", time.Since(begin), begin.UTC())
	for _, p := range r.Status("exp").Processes {
		if p.PID > 0 { t.Log(p.Name, cpu(t, p.PID), p.Started.Sub(begin)) }
	}
	time.Sleep(500 * time.Millisecond)
	for _, p := range []string{"kube-apiserver", "etcd", "kube-controller-manager"} {
		d, _ := os.ReadFile(r.Plane.dir("exp", logsDir, p+".log"))
		os.WriteFile("/tmp/cp-"+p+".log", d, 0o600)
	}
}
