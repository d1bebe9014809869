// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"strconv"
	"strings"
)

const (
	// EtcdURL is where etcd serves, inside of the control plane's namespace.
	EtcdURL = "https://127.0.0.1:2379"
	peerURL = "https://127.0.0.1:2380"
	// ciphers are those of TLS 1.2 with forward secrecy and authenticated
	// encryption, as the CIS benchmark asks; TLS 1.3 has no others.
	ciphers = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384," +
		"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
)

// runtimeEnv trades a little time for memory: a machine runs many control
// planes, and most are idle most of the time. Collecting often from the start
// counts, since what the start takes stays scattered over the heap. Below 50 the
// collections themselves become most of an idle API server's work.
func runtimeEnv() []string { return []string{"GOGC=50", "HOME=/tmp"} }

// etcd acknowledges what is on disk only: fsync stays on.
func (c *compiler) etcd() Program {
	f := func(name string) string { return c.file(Etcd, name) }
	return c.program(Etcd, "etcd", c.Spec.Etcd, c.Dirs.Etcd, runtimeEnv(),
		"--name=default",
		"--data-dir="+c.Dirs.Etcd,
		"--listen-client-urls="+EtcdURL,
		"--advertise-client-urls="+EtcdURL,
		"--listen-peer-urls="+peerURL,
		"--initial-advertise-peer-urls="+peerURL,
		"--initial-cluster=default="+peerURL,
		"--client-cert-auth=true",
		"--trusted-ca-file="+f("ca.crt"),
		"--cert-file="+f("server.crt"),
		"--key-file="+f("server.key"),
		"--peer-client-cert-auth=true",
		"--peer-trusted-ca-file="+f("ca.crt"),
		"--peer-cert-file="+f("server.crt"),
		"--peer-key-file="+f("server.key"),
		"--tls-min-version=TLS1.2",
		"--snapshot-count=2000", // entries kept in memory
		"--quota-backend-bytes=8589934592",
		"--log-level=warn",
	)
}

func (c *compiler) apiServer() Program {
	f := func(name string) string { return c.file(APIServer, name) }
	args := []string{
		// The namespace has only the loopback and the cluster's address.
		"--bind-address=0.0.0.0",
		// Clients find it at 443, from where the control plane's namespace leads to
		// the API server that is in charge.
		"--secure-port=" + strconv.Itoa(int(c.Slot.Port())),
		"--advertise-address=" + c.Address.String(),
		"--tls-cert-file=" + f("server.crt"),
		"--tls-private-key-file=" + f("server.key"),
		"--tls-min-version=VersionTLS12",
		"--tls-cipher-suites=" + ciphers,
		"--client-ca-file=" + f("client-ca.crt"),
		"--authentication-config=" + f("authentication.yaml"),
		"--authorization-config=" + f("authorization.yaml"),
		"--enable-bootstrap-token-auth=true",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--profiling=false",
		"--event-ttl=1h",
		// The agent keeps the addresses of the service "kubernetes": of two API
		// servers, the one that ends would take the other's away.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + c.ServiceCIDR.String(),
		"--shutdown-delay-duration=0s",
		// Watches end when it is told to: as long as it waits for them it listens no
		// more, until it is killed.
		"--shutdown-watch-termination-grace-period=1s",
	}
	args = append(args, c.apiServerPeers(f)...)
	args = append(args, c.apiServerKeeping(f)...)
	args = append(args, c.directoryArgs(f)...)
	return c.program(APIServer, "kubernetes", c.Version, c.Audit, runtimeEnv(), args...)
}

// apiServerPeers is how the API server meets etcd, kubelets and aggregated APIs.
func (c *compiler) apiServerPeers(f func(string) string) []string {
	return []string{
		"--etcd-servers=" + EtcdURL,
		"--etcd-cafile=" + f("etcd-ca.crt"),
		"--etcd-certfile=" + f("etcd-client.crt"),
		"--etcd-keyfile=" + f("etcd-client.key"),
		"--kubelet-client-certificate=" + f("kubelet-client.crt"),
		"--kubelet-client-key=" + f("kubelet-client.key"),
		"--kubelet-certificate-authority=" + f("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--proxy-client-cert-file=" + f("front-proxy-client.crt"),
		"--proxy-client-key-file=" + f("front-proxy-client.key"),
		"--requestheader-client-ca-file=" + f("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		// No kube-proxy runs here, so services are reached at their endpoints.
		"--enable-aggregator-routing=true",
	}
}

// apiServerKeeping is what it signs, seals and writes down.
func (c *compiler) apiServerKeeping(f func(string) string) []string {
	return append(c.issuerArgs(f),
		"--encryption-provider-config="+f("encryption.yaml"),
		"--audit-policy-file="+f("audit-policy.yaml"),
		"--audit-log-path="+strings.TrimSuffix(c.Audit, "/")+"/audit.log",
		"--audit-log-maxage=30",
		"--audit-log-maxbackup=10",
		"--audit-log-maxsize=100",
	)
}

func (c *compiler) controllerManager() Program {
	f := func(name string) string { return c.file(ControllerManager, name) }
	args := append(c.controllerCommon(f), signerArgs(f)...)
	args = append(args,
		"--secure-port=10257",
		"--controllers=*,bootstrapsigner,tokencleaner",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+f("sa.key"),
		"--root-ca-file="+f("ca.crt"),
		"--cluster-signing-duration=8760h0m0s",
		// The pod ranges of nodes are the spec's, written by the agent.
		"--allocate-node-cidrs=false",
		"--service-cluster-ip-range="+c.ServiceCIDR.String(),
		"--terminated-pod-gc-threshold=6000",
		"--flex-volume-plugin-dir=/tmp/flexvolume", // it insists on making one
		"--kube-api-qps=200",
		"--kube-api-burst=400",
	)
	return c.program(ControllerManager, "kubernetes", c.Version, "", runtimeEnv(), args...)
}

// signerArgs are the signers that the controller manager is. Kubelets' serving
// certificates are the agent's alone: it puts the chain behind them by which
// those verify who know a former authority.
func signerArgs(f func(string) string) []string {
	var args []string
	for _, signer := range []string{"kubelet-client", "kube-apiserver-client", "legacy-unknown"} {
		args = append(args, "--cluster-signing-"+signer+"-cert-file="+f("signer.crt"), "--cluster-signing-"+signer+"-key-file="+f("signer.key"))
	}
	return args
}

func (c *compiler) scheduler() Program {
	f := func(name string) string { return c.file(Scheduler, name) }
	args := append(c.controllerCommon(f), "--secure-port=10259", "--kube-api-qps=200", "--kube-api-burst=400")
	return c.program(Scheduler, "kubernetes", c.Version, "", runtimeEnv(), args...)
}

// controllerCommon is what controller manager and scheduler share. There is one
// of each, and the supervisor sees to that: they elect no leader.
func (c *compiler) controllerCommon(f func(string) string) []string {
	kubeconfig := f("kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		// They serve their own health to themselves alone: no proxy stands before
		// them whose certificates they would have to look up first.
		"--authentication-skip-lookup=true",
		"--client-ca-file=" + f("ca.crt"),
		"--bind-address=127.0.0.1",
		"--tls-cert-file=" + f("server.crt"),
		"--tls-private-key-file=" + f("server.key"),
		"--tls-min-version=VersionTLS12",
		"--tls-cipher-suites=" + ciphers,
		"--leader-elect=false",
		"--profiling=false",
	}
}
