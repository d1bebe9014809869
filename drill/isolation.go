// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"bastide.dev/client"
)

func isolationDrills() []Drill {
	return []Drill{
		{ID: "vnet-isolation", Title: "Networks don't meet unless they are peered",
			Control: "virtual networks without peering",
			Explains: "While two networks are peered, a machine of one reaches the other's servers. Without the peering there is no way. " +
				"A third network that is peered with the first alone never reaches the second: peering isn't transitive. Networks with the same prefixes can't be peered.",
			Setup: vnetIsolation},
		{ID: "spoofed-source", Title: "Nobody sends with another's address",
			Control: "network interface: IP forwarding off",
			Explains: "A machine with root sends packets with a neighbour's address as their source. An interface with IP forwarding may, since a router must; " +
				"without it, as every interface is unless asked otherwise, the packets don't leave.",
			Setup: spoofedSource},
	}
}

func vnetIsolation(ctx context.Context, s *Stage) (*Scene, error) {
	app, err := s.App(ctx)
	if err != nil {
		return nil, err
	}
	guest, err := s.Lab.neighbour(ctx, "guest", "10.93.0.0/16", false)
	if err != nil {
		return nil, err
	}
	third, err := s.Lab.neighbour(ctx, "third", "10.94.0.0/16", false)
	if err != nil {
		return nil, err
	}
	if err := guest.serve(ctx, 8080); err != nil {
		return nil, err
	}
	if err := s.peer(ctx, "guest", "third"); err != nil {
		return nil, err
	}
	// A network with the lab's own prefix.
	if _, err := s.Put(ctx, s.network("virtualNetworks", "twin"), networkVersion, object{"location": s.Instance.Location,
		"properties": object{"addressSpace": object{"addressPrefixes": []any{labPrefix}}}}); err != nil {
		return nil, err
	}
	ends := [][2]string{{"lab", "guest"}, {"guest", "lab"}}
	split := func(ctx context.Context) error {
		for _, e := range ends {
			if err := s.Delete(ctx, s.peering(e[0], e[1]), networkVersion); err != nil {
				return err
			}
		}
		return nil
	}
	join := func(ctx context.Context) error {
		for _, e := range ends {
			if _, err := s.Put(ctx, s.peering(e[0], e[1]), networkVersion, s.peeringBody(e[1])); err != nil {
				return err
			}
		}
		return nil
	}
	if err := join(ctx); err != nil {
		return nil, err
	}
	s.Undo("remove the peering", split)
	return &Scene{
		Attacks: []Attack{get(guest, "a server in the other network", onPort(app.Address, "8080"))},
		Wanted:  []Attack{get(third, "a server in the network that it is peered with", onPort(guest.Address, "8080"))},
		Never:   []Attack{get(third, "a server two peerings away", onPort(app.Address, "8080")), s.peerTwin()},
		On:      split,
		Off:     join,
		Question: func() Question {
			return Question{"vm/" + s.Group() + "/guest", onPort(app.Address, "8080")}
		},
	}, nil
}

// peerTwin is the attack of peering with a network that has the same prefixes.
func (s *Stage) peerTwin() Attack {
	id := s.peering("twin", "lab")
	return Attack{From: "an owner of both", To: "PUT " + short(id), Try: func(ctx context.Context) (Result, error) {
		began := time.Now()
		_, err := client.Put[object](ctx, s.Client, id, networkVersion, s.peeringBody("lab"))
		s.did("PUT", id, s.peeringBody("lab"), began, err)
		if err == nil {
			return Result{Worked: true, Got: "accepted"}, nil
		}
		if code := errorCode(err); code != "" {
			return Result{Got: code}, nil
		}
		return Result{}, err
	}}
}

// errorCode is the code of ARM's refusal; empty when it isn't one.
func errorCode(err error) string {
	var refused *azcore.ResponseError
	if errors.As(err, &refused) && refused.StatusCode/100 == 4 {
		return "refused: " + refused.ErrorCode
	}
	return ""
}

func spoofedSource(ctx context.Context, s *Stage) (*Scene, error) {
	app, err := s.App(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.machineIn(ctx, "spoofer", "out")
	if err != nil {
		return nil, err
	}
	const neighbour = "10.80.4.99"
	if _, err := m.Must(ctx, "sudo ip address replace "+neighbour+"/32 dev lo"); err != nil {
		return nil, err
	}
	if _, err := app.Must(ctx, "rm -f /tmp/heard; setsid socat -u UDP-RECV:9999 OPEN:/tmp/heard,creat,append >/dev/null 2>&1 & echo $! >/tmp/heard.pid; sleep 0.2"); err != nil {
		return nil, err
	}
	s.Undo("stop listening", func(ctx context.Context) error { _, _, err := app.Run(ctx, "kill $(cat /tmp/heard.pid)"); return err })
	n := 0
	send := func(source string) func(context.Context) (Result, error) {
		return func(ctx context.Context) (Result, error) {
			n++
			word := fmt.Sprintf("%s-%d", s.Name, n)
			bind := ""
			if source != "" {
				bind = ",bind=" + source
			}
			if _, err := m.Must(ctx, fmt.Sprintf("echo %s | socat -u - UDP-SENDTO:%s:9999%s", word, app.Address, bind)); err != nil {
				return Result{}, err
			}
			_, code, err := app.Run(ctx, fmt.Sprintf("(for i in 1 2 3 4 5 6 7 8; do grep -qx %s /tmp/heard && exit 0; sleep 0.05; done; exit 1)", word))
			if err != nil {
				return Result{}, err
			}
			if code == 0 {
				return Result{Worked: true, Got: "the packet arrived"}, nil
			}
			return Result{Got: "nothing arrived"}, nil
		}
	}
	set := func(forwarding bool) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := s.Put(ctx, m.NIC, networkVersion, s.nicBody("spoofer", s.subnet("out"), object{"enableIPForwarding": forwarding}))
			return err
		}
	}
	if err := set(true)(ctx); err != nil {
		return nil, err
	}
	return &Scene{
		Attacks: []Attack{{From: m.Who(), To: fmt.Sprintf("a UDP packet to %s:9999 with %s as its source", app.Address, neighbour), Try: send(neighbour)}},
		Wanted:  []Attack{{From: m.Who(), To: fmt.Sprintf("a UDP packet to %s:9999 with its own address", app.Address), Try: send("")}},
		On:      set(false),
		Off:     set(true),
	}, nil
}
