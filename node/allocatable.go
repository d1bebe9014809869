// SPDX-License-Identifier: Apache-2.0

package node

// Allocatable is what pods can have of a machine, in thousandths of a CPU and in
// bytes: all but what kubelet's config keeps back.
func Allocatable(cpus int, memory int64, maxPods int) (cpu, bytes int64) {
	return int64(cpus*1000 - reservedCPU(cpus)), memory - reservedMemory(memory, maxPods)*mebibyte - evictionMemory*mebibyte
}

const mebibyte = 1 << 20

// EvictionDisk is how much of the disk, in hundredths, has to stay free: nodes
// share it with the Linux machine that they run on.
const EvictionDisk = 15

// evictionMemory is what has to stay free, in mebibytes: evictionHard's.
const evictionMemory = 100

// reservedMemory is what is kept for the node itself, in mebibytes.
func reservedMemory(memory int64, maxPods int) int64 {
	return min(20*int64(maxPods)+50, memory/4/mebibyte)
}
