// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"sigs.k8s.io/yaml"

	"bastide.dev/rbac"
)

const (
	tokens      = 2_000 // bought in a run
	reviews     = 2_000
	assignments = 10_000
	decisions   = 200_000

	authorizationVersion = "2022-04-01"
	serverApplication    = "6dae42f8-4368-4678-94ff-3960e28e3630"
	readerRole           = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	kubeReaderRole       = "7f6c6a51-bcf8-42ba-9220-52d62157d7db"
	azureRoles           = "Azure: up to 5 min"
)

// robot is a program in the directory.
type robot struct {
	id, appID, secret string
}

// whoScene is a cluster that knows the directory, and a program that wants in.
type whoScene struct {
	*outsider
	*kube
	r       *report
	robot   robot
	cluster string // its ARM id
	token   string // of the robot, for ARM
}

const whoName = "who"

// benchIdentity measures tokens, and how soon and at what price rights hold.
func benchIdentity(t *testing.T, r *report, o *outsider) {
	s := &whoScene{outsider: o, r: r}
	if err := s.set(); err != nil {
		r.problem(fmt.Errorf("identity: %w", err))
		return
	}
	for _, part := range []struct {
		name string
		do   func() error
	}{{"tokens", s.benchTokens}, {"roles", s.benchRoles}, {"webhook", s.benchWebhook}, {"table", func() error { return benchTable(r) }}} {
		t.Run(part.name, func(t *testing.T) {
			o.t = t
			if err := part.do(); err != nil {
				r.problem(fmt.Errorf("%s: %w", part.name, err))
			}
		})
	}
	o.t = t
	if _, err := o.remove(whoName); err != nil {
		r.problem(err)
	}
}

func (s *whoScene) set() error {
	body := oneNode(whoName)
	body["properties"].(map[string]any)["aadProfile"] = map[string]any{"managed": true, "enableAzureRBAC": true}
	if _, err := s.change(http.MethodPut, s.clusterPath(whoName), body); err != nil {
		return err
	}
	s.cluster = s.clusterPath(whoName)
	var err error
	if s.kube, err = s.outsider.kube(whoName); err != nil {
		return err
	}
	// The robot brings its own token, not the administrator's certificate.
	s.kube.http.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
	if s.robot, err = s.newRobot(); err != nil {
		return err
	}
	s.token, err = s.buy(s.robot.appID, s.robot.secret, s.outsider.base)
	return err
}

// buy gets a token for a client.
func (o *outsider) buy(id, secret, resource string) (string, error) {
	env := o.cloud.Env
	resp, err := o.http.PostForm(env["AZURE_AUTHORITY_HOST"]+env["AZURE_TENANT_ID"]+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}, "scope": {resource + "/.default"}})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var token struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(text, &token); err != nil || token.Token == "" {
		return "", fmt.Errorf("token: %s %s", resp.Status, text)
	}
	return token.Token, nil
}

// newRobot makes an application with a secret, as the instance's owner.
func (s *whoScene) newRobot() (robot, error) {
	graph := "https://graph." + s.cloud.Env["BASTIDE_DOMAIN"]
	token, err := s.buy(s.cloud.Env["AZURE_CLIENT_ID"], s.cloud.Env["AZURE_CLIENT_SECRET"], graph)
	if err != nil {
		return robot{}, err
	}
	var made struct{ ID, AppID, SecretText string }
	ask := func(path string, body any) error {
		status, answer, err := s.as(s.outsider.http, token, http.MethodPost, graph+"/v1.0"+path, body)
		if err == nil && status/100 != 2 {
			err = fmt.Errorf("%s: %d %s", path, status, answer)
		}
		if err == nil {
			err = json.Unmarshal(answer, &made)
		}
		return err
	}
	var r robot
	if err := ask("/applications", map[string]any{"displayName": "robot"}); err != nil {
		return r, err
	}
	app := made.ID
	if err := ask("/applications/"+app+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "bench"}}); err != nil {
		return r, err
	}
	r.secret = made.SecretText
	err = ask("/servicePrincipals", map[string]any{"appId": made.AppID})
	r.id, r.appID = made.ID, made.AppID
	return r, err
}

// as sends a request as whoever the token belongs to.
func (s *whoScene) as(via *http.Client, token, method, address string, body any) (int, []byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	req, err := http.NewRequest(method, address, bytes.NewReader(data))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := via.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// benchTokens buys tokens with a client secret, over as many connections as readers are.
func (s *whoScene) benchTokens() error {
	var rates []float64
	for i := range runs {
		var next atomic.Int64
		var group sync.WaitGroup
		failed := make(chan error, readers)
		begin := time.Now()
		for range readers {
			group.Go(func() {
				for next.Add(1) <= tokens {
					if _, err := s.buy(s.robot.appID, s.robot.secret, s.outsider.base); err != nil {
						failed <- err
						return
					}
				}
			})
		}
		group.Wait()
		close(failed)
		for err := range failed {
			return err
		}
		rates = append(rates, tokens/time.Since(begin).Seconds())
		say("tokens %d: %.0f /s", i+1, rates[i])
	}
	s.r.add(NewFigure("tokens for a client secret, RS256", "/s", rates).Against(AtLeast, 500).With(fmt.Sprintf("%d connections, TLS, client on the same cores", readers), ""))
	return nil
}

// benchRoles gives the robot a role and takes it away, and asks all the time.
func (s *whoScene) benchRoles() error {
	cluster, err := s.buy(s.robot.appID, s.robot.secret, serverApplication)
	if err != nil {
		return err
	}
	for _, door := range []struct {
		name, role string
		ask        func() (bool, error)
	}{
		{"in Resource Manager", readerRole, func() (bool, error) {
			return allowed(s.as(s.outsider.http, s.token, http.MethodGet, s.outsider.base+s.cluster+"?api-version="+apiVersion, nil))
		}},
		{"in the cluster", kubeReaderRole, func() (bool, error) {
			return allowed(s.as(s.kube.http, cluster, http.MethodGet, s.kube.base+"/api/v1/namespaces/default/pods", nil))
		}},
	} {
		var given, taken []float64
		for range turns {
			id := s.cluster + "/providers/Microsoft.Authorization/roleAssignments/" + uuid.NewString()
			took, err := s.until(door.ask, true, func() error { return s.assign(http.MethodPut, id, door.role) })
			if err != nil {
				return err
			}
			given = append(given, took)
			if took, err = s.until(door.ask, false, func() error { return s.assign(http.MethodDelete, id, door.role) }); err != nil {
				return err
			}
			taken = append(taken, took)
		}
		s.r.add(NewTail("role assigned: PUT sent to effective "+door.name+", p95", "ms", 95, given).Against(AtMost, 500).With(azureRoles, fmt.Sprintf("median %.1f ms", Median(given))))
		s.r.add(NewTail("role removed: DELETE sent to effective "+door.name+", p95", "ms", 95, taken).Against(AtMost, 500).With(azureRoles, fmt.Sprintf("median %.1f ms", Median(taken))))
		say("roles %s: given p95 %.1f ms, taken p95 %.1f ms", door.name, Percentile(given, 95), Percentile(taken, 95))
	}
	return nil
}

func (s *whoScene) assign(method, id, role string) error {
	body := map[string]any{"properties": map[string]any{"principalId": s.robot.id, "principalType": "ServicePrincipal",
		"roleDefinitionId": "/subscriptions/" + s.cloud.Env["AZURE_SUBSCRIPTION_ID"] + "/providers/Microsoft.Authorization/roleDefinitions/" + role}}
	status, answer, err := s.as(s.outsider.http, s.outsider.token, method, s.outsider.base+id+"?api-version="+authorizationVersion, body)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, id, status, answer)
	}
	return err
}

// until says how many milliseconds after a change began the answer is as wanted.
func (s *whoScene) until(ask func() (bool, error), want bool, change func() error) (float64, error) {
	begin := time.Now()
	changed := make(chan error, 1)
	go func() { changed <- change() }()
	for time.Since(begin) < 30*time.Second {
		got, err := ask()
		if err != nil {
			return 0, errors.Join(err, <-changed)
		}
		if got == want {
			took := time.Since(begin).Seconds() * 1000
			return took, <-changed
		}
	}
	return 0, errors.Join(errors.New("a role's change took no effect in 30 s"), <-changed)
}

func allowed(status int, answer []byte, err error) (bool, error) {
	switch {
	case err != nil:
		return false, err
	case status == http.StatusOK:
		return true, nil
	case status == http.StatusForbidden:
		return false, nil
	}
	return false, fmt.Errorf("%d %s", status, answer)
}

// benchWebhook asks what the API server asks, as it does: with the cluster's own
// secret, each question decided anew.
func (s *whoScene) benchWebhook() error {
	address, secret, err := webhookOf(filepath.Join("/var/lib/bastide", instanceName))
	if err != nil {
		return err
	}
	if err := s.assign(http.MethodPut, s.cluster+"/providers/Microsoft.Authorization/roleAssignments/"+uuid.NewString(), kubeReaderRole); err != nil {
		return err
	}
	var latencies []float64
	for i := range reviews {
		review := map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": map[string]any{
			"user": s.robot.id, "groups": []string{"system:authenticated"}, "extra": map[string][]string{
				"directory.bastide.dev/oid": {s.robot.id}, "directory.bastide.dev/tid": {s.cloud.Env["AZURE_TENANT_ID"]}, "directory.bastide.dev/appid": {s.robot.appID},
				"directory.bastide.dev/idtyp": {"app"}, "directory.bastide.dev/iat": {fmt.Sprint(time.Now().Unix())}},
			"resourceAttributes": map[string]any{"namespace": fmt.Sprintf("n%d", i), "verb": "get", "version": "v1", "resource": "pods", "name": fmt.Sprint(i)}}}
		begin := time.Now()
		status, answer, err := s.as(s.outsider.http, secret, http.MethodPost, address, review)
		if err != nil {
			return err
		}
		latencies = append(latencies, time.Since(begin).Seconds()*1000)
		if status != http.StatusOK || !bytes.Contains(answer, []byte(`"allowed":true`)) {
			return fmt.Errorf("webhook: %d %s", status, answer)
		}
	}
	s.r.add(NewTail("a cluster's question to the webhook, uncached, p99", "ms", 99, thinned(latencies)).Against(AtMost, 5).With("", fmt.Sprintf("median %.2f ms", Median(latencies))))
	return nil
}

// thinned is two hundred of many samples, evenly over their order: as good for
// percentiles, and less to keep.
func thinned(samples []float64) []float64 {
	const kept = 200
	if len(samples) <= kept {
		return samples
	}
	sorted := slices.Sorted(slices.Values(samples))
	few := make([]float64, kept)
	for i := range few {
		few[i] = sorted[i*(len(sorted)-1)/(kept-1)]
	}
	return few
}

// webhookOf finds how the only integrated cluster's API server asks.
func webhookOf(state string) (address, token string, err error) {
	var found []byte
	err = filepath.WalkDir(filepath.Join(state, "host", "controlplanes"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "authorize.kubeconfig" {
			found, err = os.ReadFile(path)
		}
		return err
	})
	var config struct {
		Clusters []struct{ Cluster struct{ Server string } }
		Users    []struct{ User struct{ Token string } }
	}
	if err = errors.Join(err, yaml.Unmarshal(found, &config)); err != nil || len(config.Clusters) == 0 || len(config.Users) == 0 {
		return "", "", fmt.Errorf("the API server's way to the webhook wasn't found: %w", err)
	}
	return config.Clusters[0].Cluster.Server, config.Users[0].User.Token, nil
}

// benchTable decides among ten thousand assignments, as each ARM call does.
func benchTable(r *report) error {
	table := rbac.NewTable()
	for _, d := range rbac.Builtin() {
		table.Define(d)
	}
	people := make([]string, 1000)
	for i := range people {
		people[i] = uuid.NewString()
	}
	roles := []string{readerRole, kubeReaderRole, "b24988ac-6180-42a0-ab88-20f7382dd24c", "4d97b98b-1d4f-4787-a291-c67834d212e7"}
	for i := range assignments {
		table.Put(&rbac.Assignment{ID: fmt.Sprint(i), Scope: fmt.Sprintf("/subscriptions/s/resourceGroups/g%d", i%500), PrincipalID: people[i%len(people)],
			PrincipalType: rbac.User, Role: roles[i%len(roles)]})
	}
	latencies := make([]float64, decisions)
	for i := range latencies {
		request := rbac.Request{Subject: rbac.Subject{ID: people[i%len(people)], Groups: people[(i+1)%900 : (i+1)%900+20]}, Action: "Microsoft.ContainerService/managedClusters/read",
			Scope: fmt.Sprintf("/subscriptions/s/resourceGroups/g%d/providers/Microsoft.ContainerService/managedClusters/c", i%500), Now: time.Now()}
		begin := time.Now()
		table.Decide(request)
		latencies[i] = time.Since(begin).Seconds() * 1e6
	}
	r.add(NewTail("authorisation among 10,000 assignments, twenty groups, p99", "µs", 99, thinned(latencies)).Against(AtMost, 50).With("", fmt.Sprintf("median %.2f µs", Median(latencies))))
	return nil
}
