// SPDX-License-Identifier: Apache-2.0

package testcloud_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// machines goes through the life of a second machine beside the jump host.
func machines(t *testing.T, r *rig, jump *vm) {
	t.Run("the jump host", func(t *testing.T) {
		if out := jump.sh(t, "hostname; id -un; kubectl version --client 2>&1 | head -1"); !strings.HasPrefix(out, "jump\n"+administrator+"\nClient Version: v1.") {
			t.Errorf("it says %q", out)
		}
		if out, err := jump.run(t.Context(), r.far.space, nil, "true"); err == nil {
			t.Errorf("its group lets everybody in: %s", out)
		}
	})
	path, key, err := keyPair(t.TempDir(), "second")
	if err != nil {
		t.Fatal(err)
	}
	nic := r.nid("networkInterfaces/second")
	var view struct {
		Properties struct {
			IPConfigurations []struct {
				Properties struct{ PrivateIPAddress string }
			}
		}
	}
	r.put(t, nic, networkVersion, props(object{"ipConfigurations": []any{object{"name": "ipconfig1",
		"properties": object{"subnet": idRef(r.nid("virtualNetworks/net/subnets/vms"))}}}}), &view)
	if err := r.machine(t.Context(), "second", nic, key); err != nil {
		t.Fatal(err)
	}
	private := view.Properties.IPConfigurations[0].Properties.PrivateIPAddress
	if _, err := jump.run(t.Context(), r.here.space, []byte(read(path)), "umask 077; cat > second.key"); err != nil {
		t.Fatal(err)
	}
	answers := func() error {
		out, err := jump.run(t.Context(), r.here.space, nil, "ssh -i second.key -o BatchMode=yes -o ConnectTimeout=2 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "+administrator+"@"+private+" 'hostname; cat mark 2>/dev/null; echo here > mark' 2>&1")
		if err == nil && !strings.Contains(out, "second") {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	}
	soon(t, answers)
	vms := r.compute.NewVirtualMachinesClient()
	power := func() string {
		v, err := vms.InstanceView(t.Context(), "rg", "second", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range v.Statuses {
			if strings.HasPrefix(*s.Code, "PowerState/") {
				return *s.Code
			}
		}
		return ""
	}
	if code := errorCode(r.rest(t.Context(), "DELETE", nic, networkVersion, nil, nil)); code != "NicInUse" {
		t.Errorf("deleting an interface in use: %q", code)
	}
	for _, step := range []struct {
		name, power string
		do          func() error
		up          bool
	}{
		{"restart", "PowerState/running", act(t, vms.BeginRestart), true},
		{"power off", "PowerState/stopped", act(t, vms.BeginPowerOff), false},
		{"start", "PowerState/running", act(t, vms.BeginStart), true},
		{"deallocate", "PowerState/deallocated", act(t, vms.BeginDeallocate), false},
		{"start again", "PowerState/running", act(t, vms.BeginStart), true},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := power(); got != step.power {
			t.Errorf("after %s it is %s", step.name, got)
		}
		if step.up {
			soon(t, answers)
		} else if answers() == nil {
			t.Errorf("after %s it answers", step.name)
		}
	}
	if err := act(t, vms.BeginDelete)(); err != nil {
		t.Fatal(err)
	}
	if answers() == nil {
		t.Error("a deleted machine answers")
	}
	r.remove(t, nic, networkVersion)
}

// act is one of the machine's operations, waited for.
func act[R, O any](t *testing.T, begin func(ctx context.Context, group, name string, options *O) (*runtime.Poller[R], error)) func() error {
	return func() error {
		poller, err := begin(t.Context(), "rg", "second", nil)
		if err != nil {
			return err
		}
		_, err = poller.PollUntilDone(t.Context(), everySecond)
		return err
	}
}

// errorCode is the code in the error of a request.
func errorCode(err error) string {
	if err == nil {
		return ""
	}
	_, rest, _ := strings.Cut(err.Error(), `"code":"`)
	code, _, _ := strings.Cut(rest, `"`)
	return code
}
