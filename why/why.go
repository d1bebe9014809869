// SPDX-License-Identifier: Apache-2.0

// Package why answers whether one end reaches another, over which hops, and
// which one rule decides: from the same compiled state that the kernel has.
package why
