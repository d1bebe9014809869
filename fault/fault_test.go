// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestFromFindsTheFaultAndHidesWhatIsNone(t *testing.T) {
	own := New(Conflict, "Busy", "It is %s.", "busy").At("x").Because(errors.New("private"))
	if got := From(fmt.Errorf("outer: %w", own)); got != own {
		t.Errorf("From a wrapped fault: %v", got)
	}
	foreign := errors.New("pq: password of admin is wrong")
	got := From(foreign)
	if got.Kind != Internal || strings.Contains(got.Message, "password") || !errors.Is(got, foreign) {
		t.Errorf("From a foreign error: %+v", got)
	}
	if From(nil) != nil || Is(nil, Internal) || Is(foreign, Internal) || !Is(fmt.Errorf("x: %w", own), Conflict) {
		t.Error("From or Is of nil, a foreign error, or a wrapped fault")
	}
}

func TestJoin(t *testing.T) {
	a, b := New(Invalid, "A", "One.").At("a"), New(Unsupported, "B", "Two.").At("b")
	if Join() != nil || Join(nil, nil) != nil {
		t.Error("a Join of nothing isn't nil")
	}
	if one := From(Join(nil, a)); one != a {
		t.Error("a Join of one isn't that one")
	}
	joined := From(Join(a, nil, b))
	if joined.Kind != Invalid || joined.Code != "A" || len(joined.Details) != 2 || joined.Message != "2 problems: One. Two." {
		t.Errorf("joined: %+v", joined)
	}
}
