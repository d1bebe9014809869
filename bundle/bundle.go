// SPDX-License-Identifier: Apache-2.0

// Package bundle keeps the upstream parts that Bastide runs: named, versioned
// directories with a manifest of every file's digest, verified before use.
// A bundle's root is laid out as a file system, so that a machine can have it
// as an overlay layer and a control plane can run it in place: one copy of the
// code in the page cache for all.
package bundle
