// SPDX-License-Identifier: Apache-2.0

// Package compute is Microsoft.Compute as far as clusters and jump hosts need
// it: the scale sets that node pools are, their instances, and virtual machines.
package compute
