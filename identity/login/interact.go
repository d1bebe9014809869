// SPDX-License-Identifier: Apache-2.0

package login

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
	"bastide.dev/identity"
)

// want is what a page needs a person for, before it goes on.
type want struct {
	flow     identity.Flow
	app      identity.Application
	resource string // app id
	page     page   // what all its forms have in common
	request  []byte // names the request: what is asked for anew is asked once for it
	login    bool   // a fresh sign-in
	choose   bool   // the account
	maxAge   time.Duration
	aged     bool // maxAge counts
	mfa      bool // a second factor, whatever the policies say
}

// The steps of a sign-in, as forms name them. What a step needs is named by the
// step whose form gives it.
const (
	stepPassword  = "password"
	stepPasskey   = "passkey" // instead of a password
	stepAccount   = "account"
	stepOther     = "other" // another account
	stepChange    = "change"
	stepFactor    = "factor" // passkey as second factor
	stepOTP       = "otp"
	stepEnrol     = "enrol"
	stepRegister  = "register" // a passkey
	stepConfirm   = "confirm"  // a one-time password
	stepConsent   = "consent"
	stepDecline   = "decline"
	stepBegin     = "begin:" // before a step that needs preparation
	viewDenied    = "denied"
	factorMissing = "The second factor is missing."
)

// identify leads a person through whatever is missing and says whether nothing
// is any more; else the answer was sent.
func (s *Service) identify(v *visit, wanted want) bool {
	s.begin(v.call, wanted.flow)
	v.attempt.ClientID, v.attempt.ResourceID = wanted.app.AppID, wanted.resource
	if v.session != nil {
		s.isUser(v.call, v.user, v.proof(wanted.flow))
	}
	var problem error
	step := ""
	if v.Method == http.MethodPost {
		if problem = s.ours(v); problem == nil {
			step = v.PostForm.Get("step")
			problem = s.take(v, wanted, step)
			if problem != nil {
				s.record(v.call, problem)
			}
		}
	}
	next, err := s.missing(v, wanted)
	if err != nil {
		s.showProblem(v, wanted.page, err)
		return false
	}
	if next == "" && problem == nil {
		return true
	}
	view := wanted.page
	view.View = next
	if view.View == "" {
		view.View = stepAccount
	}
	if problem != nil {
		view.Problem = s.pageProblem(problem, v.call)
	}
	if prepare, ok := strings.CutPrefix(step, stepBegin); ok && problem == nil {
		err = s.prepare(v, &view, prepare)
	} else if step == stepConfirm && problem != nil && next == stepEnrol {
		err = s.prepare(v, &view, stepConfirm)
	}
	if err != nil {
		view.Problem = s.pageProblem(err, v.call)
	}
	s.complete(v, &view)
	status := http.StatusOK
	if problem != nil {
		status = http.StatusBadRequest
	}
	s.show(v.w, status, view)
	return false
}

// missing is the next step, "" when there is none.
func (s *Service) missing(v *visit, wanted want) (string, error) {
	if v.session == nil {
		return stepPassword, nil
	}
	settled := same(v.session.Settled, wanted.request) && s.now().Before(v.session.At.Add(settledFor))
	old := wanted.aged && s.now().Sub(v.session.At) > wanted.maxAge
	if (wanted.login || old) && (!settled || !v.session.Asked) {
		return stepPassword, nil
	}
	if wanted.choose && !settled {
		return stepAccount, nil
	}
	if v.user.MustChange && slices.Contains(v.session.Methods, identity.MethodPassword) {
		return stepChange, nil
	}
	s.isUser(v.call, v.user, v.proof(wanted.flow))
	verdict, err := s.gate.Judge(v.Context(), v.attempt)
	v.verdict = verdict
	if err != nil {
		return "", fmt.Errorf("judge sign-in: %w", err)
	}
	if verdict.Denied != nil {
		s.record(v.call, verdict.Denied)
		return viewDenied, nil
	}
	if verdict.Stale && (!settled || !v.session.Asked) {
		return stepPassword, nil
	}
	if wanted.mfa {
		verdict.NeedsMFA = true
	}
	return s.missingFactor(v, verdict)
}

func (s *Service) missingFactor(v *visit, verdict identity.Verdict) (string, error) {
	need := unproved(verdict, v.session.Methods)
	if need == "" {
		return "", nil
	}
	factors, err := s.directory.Factors(v.Context(), v.user.ID)
	if err != nil {
		return "", err
	}
	if need == identity.MethodPasskey && len(factors.Passkeys) == 0 {
		// A new one may be registered only by whoever proved all that there is.
		if factors.TOTP != nil && !slices.Contains(v.session.Methods, identity.MethodMFA) {
			return stepOTP, nil
		}
		return stepEnrol, nil
	}
	if !factors.Any() {
		return stepEnrol, nil
	}
	return stepOTP, nil
}

// take does what a form asks for. What a step may do is checked by the step: a
// form can be sent at any time.
func (s *Service) take(v *visit, wanted want, step string) error {
	switch step {
	case stepPassword:
		return s.takePassword(v, wanted)
	case stepPasskey:
		user, err := s.passkeySignIn(v, stepPasskey)
		if err != nil {
			return err
		}
		return s.signIn(v, user, []string{identity.MethodPasskey, identity.MethodMFA}, wanted.request)
	case stepOther:
		return s.endSession(v)
	}
	if v.session == nil {
		if slices.Contains([]string{stepAccount, stepChange, stepOTP, stepFactor, stepConfirm, stepRegister}, step) {
			return refuse("invalid_request", 50058, "Sign in first.")
		}
		return nil
	}
	switch step {
	case stepAccount:
		return s.settle(v, wanted.request)
	case stepChange:
		return s.takeChange(v, wanted.request)
	case stepOTP:
		if err := s.directory.CheckTOTP(v.Context(), v.user.ID, v.PostForm.Get("code")); err != nil {
			return err
		}
		return s.prove(v, identity.MethodOTP)
	case stepFactor:
		if _, err := s.passkeySignIn(v, stepFactor); err != nil {
			return err
		}
		return s.prove(v, identity.MethodPasskey)
	case stepConfirm, stepRegister:
		return s.enrol(v, step)
	}
	return nil
}

func (s *Service) takePassword(v *visit, wanted want) error {
	name := v.PostForm.Get("username")
	v.attempt.Kind, v.attempt.Name = identity.UserKind, printable(name)
	user, err := s.checkPassword(v.call, name, v.PostForm.Get("password"))
	if err != nil {
		return err
	}
	return s.signIn(v, user, []string{identity.MethodPassword}, wanted.request)
}

// takeChange sets a new password; the old one is asked for again, or whoever
// finds an open browser could take the account over.
func (s *Service) takeChange(v *visit, request []byte) error {
	old, next := v.PostForm.Get("password"), v.PostForm.Get("new")
	if next != v.PostForm.Get("again") {
		return refuse("invalid_request", 50058, "The two new passwords differ.")
	}
	if next == old {
		return refuse("invalid_request", 50058, "The new password is the old one.")
	}
	user, err := s.checkPassword(v.call, v.user.Name, old)
	if err != nil {
		return err
	}
	if err := s.directory.SetPassword(v.Context(), user.ID, next); err != nil {
		return err
	}
	if user, err = s.directory.User(v.Context(), user.ID); err != nil {
		return err
	}
	methods := v.session.Methods // what was proved stays proved; all other sessions have ended
	if err := s.signIn(v, user, methods, request); err != nil {
		return err
	}
	s.log.Info("password changed", "user", user.ID, "address", v.address())
	return nil
}

// mayEnrol says whether this session may add or take away ways to sign in: the
// sign-in is recent, and whoever has a second factor has shown it.
func (s *Service) mayEnrol(v *visit) error {
	if s.now().Sub(v.session.At) > recentFor {
		return refuse("invalid_request", 50058, "That needs a recent sign-in: sign in again.")
	}
	factors, err := s.directory.Factors(v.Context(), v.user.ID)
	if err != nil {
		return err
	}
	if factors.Any() && !slices.Contains(v.session.Methods, identity.MethodMFA) {
		return refuse("invalid_request", 50076, factorMissing)
	}
	return nil
}

func (s *Service) enrol(v *visit, step string) error {
	if err := s.mayEnrol(v); err != nil {
		return err
	}
	method := identity.MethodOTP
	if step == stepRegister {
		method = identity.MethodPasskey
		if err := s.registerPasskey(v); err != nil {
			return err
		}
	} else if err := s.directory.ConfirmTOTP(v.Context(), v.user.ID, v.PostForm.Get("code")); err != nil {
		return err
	}
	s.log.Info("second factor registered", "user", v.user.ID, "method", method, "address", v.address())
	return s.prove(v, method)
}

// prepare fills a page in for a step that needs something made for it.
func (s *Service) prepare(v *visit, view *page, step string) (err error) {
	if v.session == nil && step != stepPasskey {
		return nil
	}
	switch step {
	case stepPasskey, stepFactor, stepRegister:
		if step == stepRegister {
			if err := s.mayEnrol(v); err != nil {
				return err
			}
		}
		if view.Options, view.Challenge, err = s.beginPasskey(v, step); err != nil {
			return err
		}
		view.View, view.Step = "ceremony", step
	case stepConfirm:
		return s.showTOTP(v, view)
	}
	return nil
}

// showTOTP shows a secret for an authenticator app: a picture of its address,
// the address, and the secret for typing. It is shown once.
func (s *Service) showTOTP(v *visit, view *page) error {
	if err := s.mayEnrol(v); err != nil {
		return err
	}
	key, err := s.directory.BeginTOTP(v.Context(), v.user)
	if err != nil {
		return err
	}
	picture, err := key.Image(240, 240)
	if err != nil {
		return fmt.Errorf("draw one-time password: %w", err)
	}
	var data bytes.Buffer
	if err := png.Encode(&data, picture); err != nil {
		return fmt.Errorf("draw one-time password: %w", err)
	}
	view.View, view.Secret = "totp", key.Secret()
	view.Address = template.URL(key.URL())
	view.Picture = template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(data.Bytes()))
	return nil
}

// complete adds what every page shows of this browser.
func (s *Service) complete(v *visit, view *page) {
	view.Token = v.token()
	if v.session == nil {
		return
	}
	view.User = v.user.Name
	if view.View == stepOTP || view.View == stepEnrol || view.View == "security" {
		if factors, err := s.directory.Factors(v.Context(), v.user.ID); err == nil {
			view.HasTOTP, view.Passkeys = factors.TOTP, factors.Passkeys
		}
	}
}

// showProblem ends with a page that nothing follows.
func (s *Service) showProblem(v *visit, view page, err error) {
	view.View, view.Problem = "fatal", s.pageProblem(err, v.call)
	status := http.StatusBadRequest
	if f := fault.From(err); asOAuth(err) == nil && f.Kind == fault.Internal {
		status = http.StatusInternalServerError
	}
	s.complete(v, &view)
	s.show(v.w, status, view)
}
