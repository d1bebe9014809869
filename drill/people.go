// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"bastide.dev/client"
	"bastide.dev/drill/linux"
)

const (
	// serverApplication is what a token for a cluster is for.
	serverApplication = "6dae42f8-4368-4678-94ff-3960e28e3630"
	// commandLine is the public client that az is.
	commandLine          = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
	authorizationVersion = "2022-04-01"
)

// Azure's built-in roles that drills give.
const (
	roleReader           = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	roleKubeReader       = "7f6c6a51-bcf8-42ba-9220-52d62157d7db"
	roleKubeWriter       = "a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb"
	roleKubeAdmin        = "3498e952-d568-435e-9b2c-8d77e338d7f7"
	roleKubeClusterAdmin = "b1ff04bb-8a4e-4dc4-8eb5-8693973ce19b"
)

// Person is a user of the directory, who signs in with a password.
type Person struct {
	ID, Name string // object id, user principal name
	password string
}

// Who names the person.
func (p *Person) Who() string { return "user " + p.Name }

// Robot is an application with a service principal.
type Robot struct {
	ID, AppID, object string // the principal's object id, the app id, the application's object id
	Name              string
}

// ask asks Graph as the instance's owner, on record unless it only reads.
func (s *Stage) ask(ctx context.Context, method, path string, body, into any) error {
	began := time.Now()
	err := s.graph(ctx, method, path, body, into)
	if method != "GET" {
		s.did(method, s.Instance.Graph()+"/v1.0"+path, withoutSecrets(body), began, err)
	}
	return err
}

func (l *Lab) graph(ctx context.Context, method, path string, body, into any) error {
	token, err := l.Client.Token(ctx, l.Instance.Graph())
	if err != nil {
		return err
	}
	answer, err := l.send(ctx, method, l.Instance.Graph()+"/v1.0"+path, token, body, nil)
	if err != nil {
		return err
	}
	if answer.Status/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", method, path, answer.Status, answer.Body)
	}
	if into == nil || len(answer.Body) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer.Body, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// withoutSecrets is what of a body may stand in a report.
func withoutSecrets(body any) any {
	o, ok := body.(object)
	if !ok || o["passwordProfile"] == nil {
		return body
	}
	return merged(o, object{"passwordProfile": "(not shown)"})
}

// send sends JSON with a token; from is where the connection begins, nil here.
func (l *Lab) send(ctx context.Context, method, address, token string, body any, from *Terminal) (client.Answer, error) {
	e := client.Exchange{Method: method, Address: address, Bearer: token}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return client.Answer{}, fmt.Errorf("%s %s: %w", method, address, err)
		}
		e.Body, e.ContentType = text, "application/json"
	}
	if from != nil {
		e.Dial = from.dial
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return l.Instance.Do(ctx, e)
}

// Person makes a user, who goes with the drill.
func (s *Stage) Person(ctx context.Context, name string) (*Person, error) {
	unique := name + "-" + strings.ToLower(rand.Text()[:8])
	p := &Person{Name: unique + "@" + s.Instance.Domain, password: "Drill-" + rand.Text()}
	var made struct{ ID string }
	err := s.ask(ctx, "POST", "/users", object{"accountEnabled": true, "displayName": name, "mailNickname": unique, "userPrincipalName": p.Name,
		"passwordProfile": object{"password": p.password, "forceChangePasswordNextSignIn": false}}, &made)
	if err != nil {
		return nil, err
	}
	p.ID = made.ID
	s.Undo("remove "+p.Name, func(ctx context.Context) error { return s.graph(ctx, "DELETE", "/users/"+p.ID, nil, nil) })
	return p, nil
}

// Circle makes a group of the directory, which goes with the drill.
func (s *Stage) Circle(ctx context.Context, name string) (id string, err error) {
	unique := name + "-" + strings.ToLower(rand.Text()[:8])
	var made struct{ ID string }
	err = s.ask(ctx, "POST", "/groups", object{"displayName": unique, "mailNickname": unique, "mailEnabled": false, "securityEnabled": true}, &made)
	if err == nil {
		s.Undo("remove group "+unique, func(ctx context.Context) error { return s.graph(ctx, "DELETE", "/groups/"+made.ID, nil, nil) })
	}
	return made.ID, err
}

// join and leave change who is in a group.
func (s *Stage) join(ctx context.Context, group, member string) error {
	return s.ask(ctx, "POST", "/groups/"+group+"/members/$ref", object{"@odata.id": s.Instance.Graph() + "/v1.0/directoryObjects/" + member}, nil)
}

func (s *Stage) leave(ctx context.Context, group, member string) error {
	return s.ask(ctx, "DELETE", "/groups/"+group+"/members/"+member+"/$ref", nil, nil)
}

// Robot makes an application with its principal; both go with the drill.
func (s *Stage) Robot(ctx context.Context, name string) (*Robot, error) {
	r := &Robot{Name: name + "-" + strings.ToLower(rand.Text()[:8])}
	var app struct{ ID, AppID string }
	if err := s.ask(ctx, "POST", "/applications", object{"displayName": r.Name}, &app); err != nil {
		return nil, err
	}
	r.AppID, r.object = app.AppID, app.ID
	s.Undo("remove application "+r.Name, func(ctx context.Context) error { return s.graph(ctx, "DELETE", "/applications/"+app.ID, nil, nil) })
	var sp struct{ ID string }
	err := s.ask(ctx, "POST", "/servicePrincipals", object{"appId": r.AppID}, &sp)
	r.ID = sp.ID
	return r, err
}

// secret gives the application a secret that ends at a time.
func (s *Stage) secret(ctx context.Context, r *Robot, ends time.Time) (string, error) {
	var made struct{ SecretText string }
	err := s.ask(ctx, "POST", "/applications/"+r.object+"/addPassword", object{"passwordCredential": object{"displayName": "drill",
		"endDateTime": ends.UTC().Format(time.RFC3339Nano)}}, &made)
	return made.SecretText, err
}

// signIn gets a person's token for a resource; from is where they sit, nil here.
func (l *Lab) signIn(ctx context.Context, p *Person, resource string, from *Terminal) (string, error) {
	return l.buy(ctx, url.Values{"grant_type": {"password"}, "client_id": {commandLine}, "username": {p.Name}, "password": {p.password},
		"scope": {resource + "/.default"}}, from)
}

// errRefused is the token service's no.
var errRefused = errors.New("refused")

// buy sends a form to the token service.
func (l *Lab) buy(ctx context.Context, form url.Values, from *Terminal) (string, error) {
	e := client.Exchange{Method: "POST", Address: l.Instance.Authority() + "/" + l.Instance.TenantID + "/oauth2/v2.0/token",
		Body: []byte(form.Encode()), ContentType: "application/x-www-form-urlencoded"}
	if from != nil {
		e.Dial = from.dial
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := l.Instance.Do(ctx, e)
	if err != nil {
		return "", err
	}
	var said struct {
		Token       string `json:"access_token"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal(answer.Body, &said); err != nil {
		return "", fmt.Errorf("token service: %d %w", answer.Status, err)
	}
	if said.Token == "" {
		return "", fmt.Errorf("%w: %s", errRefused, firstLine(said.Description))
	}
	return said.Token, nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}

// grant gives a principal a role, on record; the returned function takes it away.
func (s *Stage) grant(ctx context.Context, principal, kind, role, scope string) (revoke func(context.Context) error, err error) {
	id := scope + "/providers/Microsoft.Authorization/roleAssignments/" + newGUID()
	_, err = s.Put(ctx, id, authorizationVersion, object{"properties": object{"principalId": principal, "principalType": kind,
		"roleDefinitionId": "/subscriptions/" + s.Instance.SubscriptionID + "/providers/Microsoft.Authorization/roleDefinitions/" + role}})
	if err != nil {
		return nil, err
	}
	s.Undo("take a role away", func(ctx context.Context) error { return s.Client.Delete(ctx, id, authorizationVersion) })
	return func(ctx context.Context) error { return s.Delete(ctx, id, authorizationVersion) }, nil
}

func newGUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// claims reads a token's payload.
func claims(token string) (object, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("the token has not three parts")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	var o object
	return o, json.Unmarshal(text, &o)
}

// readsARM is reading something in Resource Manager with a token that is
// looked up anew for each try.
func (s *Stage) readsARM(who, id, version string, token func() string) Attack {
	return Attack{From: who, To: "GET " + short(id) + " from Resource Manager", Try: func(ctx context.Context) (Result, error) {
		answer, err := s.send(ctx, "GET", s.Instance.ResourceManager()+id+"?api-version="+version, token(), nil, nil)
		if err != nil {
			return Result{}, err
		}
		return answered(answer), nil
	}}
}

// answered is a result of an HTTP answer: what isn't 401 or 403 was let through.
func answered(a client.Answer) Result {
	var said struct {
		Error   struct{ Code, Message string }
		Message string
	}
	_ = json.Unmarshal(a.Body, &said) // what it can't read isn't an error's body
	r := Result{Worked: a.Status != 401 && a.Status != 403, Got: fmt.Sprint(a.Status), Body: string(a.Body)}
	if !r.Worked {
		r.Got = strings.TrimSpace(fmt.Sprintf("%d %s %s%s", a.Status, said.Error.Code, firstLine(said.Error.Message), firstLine(said.Message)))
	}
	return r
}

// dial connects from the terminal.
func (t *Terminal) dial(ctx context.Context, address string) (net.Conn, error) {
	return linux.Dial(ctx, t.path, address)
}
