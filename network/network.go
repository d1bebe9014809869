// SPDX-License-Identifier: Apache-2.0

// Package network is Microsoft.Network: virtual networks, security groups,
// route tables, load balancers, public addresses and the rest as resources; the
// planning of addresses; and the pure compiler from all of them to what a
// host's data plane should be.
//
// Other providers reach it through interfaces that they declare and cmd fills.
package network
