// SPDX-License-Identifier: Apache-2.0

// Package cni is a chained CNI plugin that makes no network: it tells the
// node's policy agent of each pod's addresses, and lets the pod go on when its
// policies are in the kernel. So they hold for its very first packet.
//
// Only cmd/bastide-netpolicy imports it.
package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"bastide.dev/netpolicy"
)

// patience is longer than the agent's own: its reason is the better one.
const patience = 15 * time.Second

// config is the plugin's part of a network's configuration.
type config struct {
	types.NetConf
	Socket string `json:"socket"`
}

// podArgs is what kubelet's runtime says about the pod.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID types.UnmarshallableString
}

// Main is the plugin: it reads the environment and input that CNI gives, and exits.
func Main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: del, Check: check, Status: status}, version.All,
		"holds a pod back until its network policies are in the kernel")
}

func read(data []byte) (*config, error) {
	c := &config{Socket: netpolicy.SocketPath}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return c, version.ParsePrevResult(&c.NetConf)
}

func add(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	if c.PrevResult == nil {
		return errors.New("it makes no network itself: another plugin must come first")
	}
	result, err := current.NewResultFromResult(c.PrevResult)
	if err != nil {
		return err
	}
	pod := podArgs{CommonArgs: types.CommonArgs{IgnoreUnknown: true}}
	if err := types.LoadArgs(args.Args, &pod); err != nil {
		return err
	}
	s := netpolicy.Sandbox{ID: args.ContainerID, Namespace: string(pod.K8S_POD_NAMESPACE), Name: string(pod.K8S_POD_NAME), UID: string(pod.K8S_POD_UID)}
	for _, ip := range result.IPs {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			s.Addresses = append(s.Addresses, a.Unmap())
		}
	}
	if err := c.call(http.MethodPut, netpolicy.SandboxPath+url.PathEscape(s.ID), s); err != nil {
		return err
	}
	return types.PrintResult(c.PrevResult, c.CNIVersion)
}

// del succeeds without the agent, too: what it isn't told of now it learns from
// the API server, and a pod that is gone must not be kept for its sake.
func del(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	var gone *net.OpError
	if err := c.call(http.MethodDelete, netpolicy.SandboxPath+url.PathEscape(args.ContainerID), nil); err != nil && !errors.As(err, &gone) {
		return err
	}
	return nil
}

func check(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	return c.call(http.MethodGet, netpolicy.SandboxPath+url.PathEscape(args.ContainerID), nil)
}

func status(args *skel.CmdArgs) error {
	c, err := read(args.StdinData)
	if err != nil {
		return err
	}
	return c.call(http.MethodGet, netpolicy.StatusPath, nil)
}

// call asks the agent; what isn't well is its answer's text.
func (c *config) call(method, path string, body any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
	}}}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("policy agent: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // for the message alone
		return fmt.Errorf("policy agent: %s", bytes.TrimSpace(text))
	}
	return nil
}
