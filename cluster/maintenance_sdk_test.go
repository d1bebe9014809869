// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	sdk "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"

	"bastide.dev/arm"
	"bastide.dev/maintenance"
	"bastide.dev/resource"
)

// The Azure SDK writes configurations of each form, reads them, lists them, and
// takes them away; what is left goes with the cluster.
func TestAzureSDKMaintenance(t *testing.T) {
	t.Parallel()
	w, factory := service(t, time.Nanosecond)
	ctx := t.Context()
	clusters, configs := factory.NewManagedClustersClient(), factory.NewMaintenanceConfigurationsClient()
	if _, err := configs.CreateOrUpdate(ctx, "rg1", "c1", maintenance.Default, sdk.MaintenanceConfiguration{}, nil); status(err) != http.StatusNotFound {
		t.Errorf("of a cluster that isn't there: %v", err)
	}
	created := done[sdk.ManagedClustersClientCreateOrUpdateResponse](t)(clusters.BeginCreateOrUpdate(ctx, "rg1", "c1", sdk.ManagedCluster{
		Location: ptr("eastus"), Identity: &sdk.ManagedClusterIdentity{Type: ptr(sdk.ResourceIdentityTypeSystemAssigned)},
		Properties: &sdk.ManagedClusterProperties{DNSPrefix: ptr("c1"), AutoUpgradeProfile: &sdk.ManagedClusterAutoUpgradeProfile{UpgradeChannel: ptr(sdk.UpgradeChannelStable)},
			AgentPoolProfiles: []*sdk.ManagedClusterAgentPoolProfile{
				{Name: ptr("system"), Count: ptr[int32](1), VMSize: ptr("Standard_D2s_v5"), Mode: ptr(sdk.AgentPoolModeSystem)}}},
	}, nil))
	if p := created.Properties.AutoUpgradeProfile; *p.UpgradeChannel != sdk.UpgradeChannelStable || *p.NodeOSUpgradeChannel != sdk.NodeOSUpgradeChannelNodeImage {
		t.Errorf("channels %s and %s", *p.UpgradeChannel, *p.NodeOSUpgradeChannel)
	}
	date := func(text string) *time.Time {
		d, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		return &d
	}
	written := map[string]*sdk.MaintenanceConfigurationProperties{
		maintenance.Default: {
			TimeInWeek:     []*sdk.TimeInWeek{{Day: ptr(sdk.WeekDayMonday), HourSlots: []*int32{ptr[int32](1), ptr[int32](2)}}},
			NotAllowedTime: []*sdk.TimeSpan{{Start: date("2026-12-23"), End: date("2027-01-03")}},
		},
		maintenance.Cluster: {MaintenanceWindow: &sdk.MaintenanceWindow{
			Schedule:      &sdk.Schedule{RelativeMonthly: &sdk.RelativeMonthlySchedule{IntervalMonths: ptr[int32](3), WeekIndex: ptr(sdk.TypeLast), DayOfWeek: ptr(sdk.WeekDayFriday)}},
			DurationHours: ptr[int32](8), StartTime: ptr("22:00"), UTCOffset: ptr("-07:00"), StartDate: date("2026-12-01"),
			NotAllowedDates: []*sdk.DateSpan{{Start: date("2026-12-23"), End: date("2027-01-03")}},
		}},
		maintenance.NodeOS: {MaintenanceWindow: &sdk.MaintenanceWindow{
			Schedule: &sdk.Schedule{Daily: &sdk.DailySchedule{IntervalDays: ptr[int32](3)}}, DurationHours: ptr[int32](4), StartTime: ptr("01:00"),
		}},
	}
	for name, properties := range written {
		for range 2 {
			if _, err := configs.CreateOrUpdate(ctx, "rg1", "c1", name, sdk.MaintenanceConfiguration{Properties: properties}, nil); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		read, err := configs.Get(ctx, "rg1", "c1", name, nil)
		if err != nil || *read.Name != name || *read.Type != "Microsoft.ContainerService/managedClusters/maintenanceConfigurations" {
			t.Fatalf("%s: %+v, %v", name, read, err)
		}
		if window := read.Properties.MaintenanceWindow; window != nil && (window.StartDate == nil || *window.UTCOffset == "") {
			t.Errorf("%s reads %+v", name, window)
		}
	}
	read, err := configs.Get(ctx, "rg1", "c1", maintenance.Cluster, nil)
	if err != nil || !read.Properties.MaintenanceWindow.NotAllowedDates[0].End.Equal(*date("2027-01-03")) || *read.Properties.MaintenanceWindow.Schedule.RelativeMonthly.WeekIndex != sdk.TypeLast {
		t.Errorf("what was written reads %+v, %v", read.Properties, err)
	}
	if _, err := configs.CreateOrUpdate(ctx, "rg1", "c1", "mine", sdk.MaintenanceConfiguration{Properties: written[maintenance.Default]}, nil); status(err) != http.StatusBadRequest {
		t.Errorf("another name: %v", err)
	}
	names := func() []string {
		var found []string
		for pager := configs.NewListByManagedClusterPager("rg1", "c1", nil); pager.More(); {
			page, err := pager.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, config := range page.Value {
				found = append(found, *config.Name)
			}
		}
		slices.Sort(found)
		return found
	}
	if got := names(); len(got) != 3 {
		t.Errorf("configurations %v", got)
	}
	for range 2 { // of what isn't there a DELETE is as good
		if _, err := configs.Delete(ctx, "rg1", "c1", maintenance.Default, nil); err != nil {
			t.Error(err)
		}
	}
	if got := names(); len(got) != 2 {
		t.Errorf("after one is deleted: %v", got)
	}
	done[sdk.ManagedClustersClientDeleteResponse](t)(clusters.BeginDelete(ctx, "rg1", "c1", nil))
	left, _, err := arm.ListDocuments(ctx, w.memory, resource.MustParseID(testCluster), "")
	if err != nil || len(left) != 0 {
		t.Errorf("left of the cluster: %v, %v", left, err)
	}
}

// The plan is read through the front door, and what isn't understood refused by name.
func TestThePlanOverTheWire(t *testing.T) {
	c := newCalm(t, `{"upgradeChannel":"patch"}`, "2027-03-01 12:00")
	c.group("rg1")
	handler, err := arm.New(arm.Config{Store: c.memory, Authenticator: anyone{}, Authorizer: anyone{}, Providers: []arm.Provider{c.p.ARM()},
		Tenant: arm.Tenant{ID: "t1"}, Subscriptions: []arm.Subscription{{ID: testSubscription, DisplayName: "test"}},
		Endpoints: arm.Endpoints{ResourceManager: "https://arm.test", Login: "https://login.test"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) (int, object) {
		request := httptest.NewRequest(method, "https://arm.test"+testCluster+path, strings.NewReader(body))
		request.Header.Set("Authorization", "Bearer token")
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		var answer object
		if recorder.Body.Len() > 0 {
			if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
		}
		return recorder.Code, answer
	}
	code, answer := ask("GET", "/maintenancePlans?api-version=2025-02-01&days=3", "")
	values, _ := answer["value"].([]any)
	if code != http.StatusOK || len(values) < 2 || get(values[0].(object), "properties.kind") == nil {
		t.Errorf("%d %v", code, answer)
	}
	if code, answer = ask("GET", "/maintenancePlans?api-version=2025-02-01&days=1000", ""); code != http.StatusBadRequest {
		t.Errorf("too many days: %d %v", code, answer)
	}
	code, answer = ask("PUT", "/maintenanceConfigurations/default?api-version=2025-02-01", `{"properties":{"timeInWeek":[{"day":"Monday","hourSlots":[24]}],"window":1}}`)
	if details, _ := get(answer, "error.details").([]any); code != http.StatusBadRequest || len(details) != 2 {
		t.Errorf("an hour and a name that aren't: %d %v", code, answer)
	}
}
