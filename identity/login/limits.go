// SPDX-License-Identifier: Apache-2.0

package login

import (
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// limits bound what strangers can make the service do, in this process. They are
// far above what people and their tools need, and far below what guessing needs.
type limits struct {
	now   func() time.Time
	names *lru.Cache[string, *rate.Limiter]
	begun *lru.Cache[string, *rate.Limiter]
}

const (
	passwordsPerSecond = 10 // of an address; a fifth of it of a name there; twice as many of a name from anywhere
	passwordsAtOnce    = 100
	beginsPerSecond    = 5 // device codes, passkey challenges: each writes a document
	beginsAtOnce       = 60
	guessesPerSecond   = 0.5 // of 29^9 codes
	guessesAtOnce      = 30
)

func newLimits(now func() time.Time) *limits {
	names, _ := lru.New[string, *rate.Limiter](16384) // fails for a size below 1 only
	begun, _ := lru.New[string, *rate.Limiter](4096)
	return &limits{now: now, names: names, begun: begun}
}

func (l *limits) allow(of *lru.Cache[string, *rate.Limiter], key string, perSecond float64, burst int) error {
	limiter, ok := of.Get(key)
	if !ok {
		limiter = rate.NewLimiter(rate.Limit(perSecond), burst)
		if earlier, found, _ := of.PeekOrAdd(key, limiter); found {
			limiter = earlier
		}
	}
	if !limiter.AllowN(l.now(), 1) {
		return tooMany()
	}
	return nil
}

// password may be tried for a name, from an address.
func (l *limits) password(address, name string) error {
	if err := l.allow(l.names, "\x00"+address, passwordsPerSecond, passwordsAtOnce); err != nil {
		return err
	}
	name = strings.ToLower(printable(name))
	if err := l.allow(l.names, name+"\x00"+address, passwordsPerSecond/5, passwordsAtOnce/2); err != nil {
		return err
	}
	return l.allow(l.names, name, passwordsPerSecond*2, passwordsAtOnce*2)
}

// begin of something that is kept for a while, by an address.
func (l *limits) begin(address string) error {
	return l.allow(l.begun, address, beginsPerSecond, beginsAtOnce)
}

// guess of a device's code, by an address: people mistype a few.
func (l *limits) guess(address string) error {
	return l.allow(l.begun, "guess\x00"+address, guessesPerSecond, guessesAtOnce)
}
