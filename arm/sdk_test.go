// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	sdkarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	sdkruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"

	"bastide.dev/fault"
	"bastide.dev/store/memory"
)

// ownerToken is the SDK's credential.
type ownerToken struct{}

func (ownerToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "owner", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// sdk drives the front door with the Azure SDK's own pipeline and pollers.
type sdk struct {
	t        *testing.T
	f        *front
	url      string
	pipeline runtime.Pipeline
}

func newSDK(t *testing.T) *sdk {
	t.Helper()
	var f *front
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.h.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	f = frontOver(t, memory.New(0))
	f.h.config.Endpoints.ResourceManager = server.URL
	f.runs()
	pipeline, err := sdkruntime.NewPipeline("test", "v1.0.0", ownerToken{}, runtime.PipelineOptions{}, &sdkarm.ClientOptions{
		ClientOptions: policy.ClientOptions{Transport: server.Client(), Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: server.URL,
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: server.URL, Audience: server.URL}},
		}}})
	if err != nil {
		t.Fatal(err)
	}
	return &sdk{t: t, f: f, url: server.URL, pipeline: pipeline}
}

type sdkThing struct {
	Name       string
	Properties struct{ ProvisioningState string }
}

// begin sends a request and returns the SDK's poller of its operation.
func (s *sdk) begin(method, target, body string) *runtime.Poller[sdkThing] {
	s.t.Helper()
	r, err := runtime.NewRequest(s.t.Context(), method, s.url+target)
	if err != nil {
		s.t.Fatal(err)
	}
	if body != "" {
		if err := r.SetBody(streaming.NopCloser(strings.NewReader(body)), "application/json"); err != nil {
			s.t.Fatal(err)
		}
	}
	answer, err := s.pipeline.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if answer.StatusCode >= 300 {
		text, _ := io.ReadAll(answer.Body) // shown as far as it could be read
		s.t.Fatalf("%s %s: %d %s", method, target, answer.StatusCode, text)
	}
	poller, err := runtime.NewPoller[sdkThing](answer, s.pipeline, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return poller
}

func (s *sdk) finish(err error) func(*Operation) error { return func(*Operation) error { return err } }

func TestSDKFollowsOperations(t *testing.T) {
	t.Parallel()
	s := newSDK(t)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	if _, err := s.begin("PUT", rg+core, `{"location":"eastus"}`).PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	put := s.begin("PUT", things+"/one"+v, slow)
	if put.Done() {
		t.Error("the operation is said to be done at once")
	}
	finisher(t, s.f, s.finish(nil))
	got, err := put.PollUntilDone(ctx, nil)
	if err != nil || got.Name != "one" || got.Properties.ProvisioningState != "Succeeded" {
		t.Errorf("PUT ended with %+v, %v", got, err)
	}
	for _, step := range [][2]string{{"POST", things + "/one/stop" + v}, {"DELETE", things + "/one" + v}, {"DELETE", rg + core}} {
		if _, err := s.begin(step[0], step[1], "").PollUntilDone(ctx, nil); err != nil {
			t.Errorf("%s %s: %v", step[0], step[1], err)
		}
	}
}

func TestSDKSeesFailure(t *testing.T) {
	t.Parallel()
	s := newSDK(t)
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	s.begin("PUT", rg+core, `{"location":"eastus"}`)
	finisher(t, s.f, s.finish(fault.New(fault.Exhausted, "NoDisk", "The disk is full.")))
	_, err := s.begin("PUT", things+"/one"+v, slow).PollUntilDone(ctx, nil)
	if err == nil || !strings.Contains(err.Error(), "NoDisk") {
		t.Errorf("the SDK ends with %v", err)
	}
}
