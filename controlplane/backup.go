// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"time"
)

// Backups are the copies of its etcd that a control plane keeps on its host,
// sealed. Those that aren't named are removed.
type Backups struct {
	// Key is an age identity, as text, that opens them.
	Key []byte `json:"key,omitempty"`
	// Take are those that there shall be, and Keep those that there were: one of
	// them that is lost isn't made anew, for it would be of another time.
	Take []string `json:"take,omitempty"`
	Keep []string `json:"keep,omitempty"`
}

// Restore asks for a control plane's data to be replaced by what a backup holds,
// once for each token.
type Restore struct {
	Token  string `json:"token"`
	Source string `json:"source"` // the control plane that the backup is of
	Backup string `json:"backup"`
	SHA256 string `json:"sha256"` // of the database in it
	// Key opens the backup; Secrets is the key by which Secrets are sealed in it.
	Key     []byte `json:"key"`
	Secrets []byte `json:"secrets"`
}

// Backup is one that is kept, or could not be made.
type Backup struct {
	ID       string    `json:"id"`
	Taken    time.Time `json:"taken,omitzero"`
	Revision int64     `json:"revision,omitempty"` // of etcd
	Objects  int64     `json:"objects,omitempty"`
	Size     int64     `json:"size,omitempty"` // of the database, in bytes
	SHA256   string    `json:"sha256,omitempty"`
	Version  string    `json:"version,omitempty"` // of Kubernetes
	Etcd     string    `json:"etcd,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// RestorePhase is where a restore stands.
type RestorePhase string

// The phases.
const (
	RestorePreparing RestorePhase = "Preparing" // beside what serves
	RestoreSwitching RestorePhase = "Switching" // nothing serves
	RestoreTrying    RestorePhase = "Trying"    // clients wait until what was restored is good
	RestoreReturning RestorePhase = "Returning" // it isn't: the data of before comes back
	RestoreDone      RestorePhase = "Done"
	RestoreFailed    RestorePhase = "Failed" // Error says why; the data is that of before
)

// RestoreStatus answers Restore.
type RestoreStatus struct {
	Token string       `json:"token"`
	Phase RestorePhase `json:"phase"`
	Error string       `json:"error,omitempty"`
	// Objects are how many came back; Note is what else there is to know.
	Objects int64  `json:"objects,omitempty"`
	Note    string `json:"note,omitempty"`
}

// Ended tells whether a restore is over.
func (s *RestoreStatus) Ended() bool {
	return s != nil && (s.Phase == RestoreDone || s.Phase == RestoreFailed)
}

var digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (b *Backups) validate(need func(ok bool, target string)) {
	if b == nil {
		return
	}
	need(len(b.Take) == 0 || len(b.Key) > 0, "backups.key")
	for _, ids := range [][]string{b.Take, b.Keep} {
		for _, id := range ids {
			need(IsID(id), "backups")
		}
	}
}

func (r *Restore) validate(need func(ok bool, target string)) {
	if r == nil {
		return
	}
	need(IsID(r.Token), "restore.token")
	need(IsID(r.Source), "restore.source")
	need(IsID(r.Backup), "restore.backup")
	need(digestForm.MatchString(r.SHA256), "restore.sha256")
	need(len(r.Key) > 0, "restore.key")
	need(len(r.Secrets) == 32, "restore.secrets")
}

// IsID tells whether a text may name a control plane, or a backup: it becomes
// part of a path.
func IsID(id string) bool { return idForm.MatchString(id) && len(id) <= 63 }

// EncryptionKeyName names the key that seals Secrets, in what it sealed.
func EncryptionKeyName(key []byte) string {
	sum := sha256.Sum256(key)
	return "key-" + hex.EncodeToString(sum[:4])
}
