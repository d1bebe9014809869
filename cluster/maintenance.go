// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"

	aks "github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"

	"bastide.dev/arm"
	"bastide.dev/fault"
	"bastide.dev/maintenance"
	"bastide.dev/resource"
)

const maintenanceType = clusterType + "/maintenanceConfigurations"

// maintenanceTypes are the rows of what a cluster's maintenance is configured
// and foretold by.
func (p *Provider) maintenanceTypes(versions []resource.APIVersion) []arm.Type {
	return []arm.Type{
		{
			Name: "managedClusters/maintenanceConfigurations", Versions: versions,
			Model:    func() any { return &aks.MaintenanceConfiguration{} },
			ReadOnly: []string{"id", "name", "type", "systemData"},
			Put:      p.putMaintenance, View: viewMaintenance,
		},
		{Name: "managedClusters/maintenancePlans", Versions: versions, List: p.maintenancePlans},
		{Name: "managedClusters/" + pendingType, Versions: versions, List: p.pendingReboots},
	}
}

// putMaintenance creates or replaces a maintenance configuration. The reconciler
// sees it as it sees all that is below a cluster.
func (p *Provider) putMaintenance(_ context.Context, r *arm.Request) (*arm.Plan, error) {
	if r.Parent == nil {
		return nil, notFound(r.ID.Parent())
	}
	name := r.ID.Name()
	for _, known := range maintenance.Names() {
		if strings.EqualFold(known, name) {
			name = known // where it stands keeps the case it was created in
		}
	}
	body, err := clone(r.Body)
	if err != nil {
		return nil, err
	}
	// What a new window leaves out is written down, so that its intervals count
	// from the same day ever after.
	if window, ok := get(body, "properties.maintenanceWindow").(object); ok {
		preset(window, "utcOffset", "+00:00")
		preset(window, "startDate", p.startDate(r.Old, get(window, "utcOffset")))
	}
	if _, err := calendarOf(name, body); err != nil {
		return nil, err
	}
	document, err := r.New()
	if err != nil {
		return nil, fault.New(fault.Invalid, "InvalidRequestContent", "The request content can't be kept.").Because(err)
	}
	return &arm.Plan{Document: document}, document.SetBody(body)
}

// startDate is that of the configuration so far, or today where the window is.
func (p *Provider) startDate(old *arm.Document, offset any) string {
	if old != nil {
		if body, err := arm.ViewBase(old); err == nil {
			if was, ok := get(body, "properties.maintenanceWindow.startDate").(string); ok {
				return was
			}
		}
	}
	now := p.Now().UTC()
	if zone, err := time.Parse("-07:00", fmt.Sprint(offset)); err == nil {
		now = now.In(zone.Location())
	}
	return now.Format(time.DateOnly)
}

// viewMaintenance is a configuration as a client sees it: AKS gives it no state.
func viewMaintenance(_ context.Context, d *arm.Document, _ resource.APIVersion) (any, error) {
	body, err := arm.ViewBase(d)
	if err != nil {
		return nil, err
	}
	arm.Drop(body, "properties.provisioningState")
	delete(body, "eTag")
	return body, nil
}

// calendarOf reads a configuration's body.
func calendarOf(name string, body object) (*maintenance.Calendar, error) {
	var model aks.MaintenanceConfiguration
	if err := decode(body, &model); err != nil {
		return nil, err
	}
	config := maintenance.Config{Name: name}
	if props := model.Properties; props != nil {
		for _, in := range props.TimeInWeek {
			if in == nil {
				continue
			}
			h := maintenance.Hours{Day: string(value(in.Day))}
			for _, slot := range in.HourSlots {
				h.Hours = append(h.Hours, int(value(slot)))
			}
			config.Hours = append(config.Hours, h)
		}
		for _, span := range props.NotAllowedTime {
			if span != nil {
				config.NotAllowed = append(config.NotAllowed, maintenance.Span{Start: value(span.Start), End: value(span.End)})
			}
		}
		config.Window = recurringOf(props.MaintenanceWindow)
	}
	return maintenance.New(config)
}

func recurringOf(w *aks.MaintenanceWindow) *maintenance.Recurring {
	if w == nil {
		return nil
	}
	r := &maintenance.Recurring{DurationHours: int(value(w.DurationHours)), UTCOffset: value(w.UTCOffset),
		StartTime: value(w.StartTime), StartDate: value(w.StartDate)}
	for _, span := range w.NotAllowedDates {
		if span != nil {
			r.Blackouts = append(r.Blackouts, maintenance.Dates{Start: value(span.Start), End: value(span.End)})
		}
	}
	s := value(w.Schedule)
	if s.Daily != nil {
		r.Daily = &maintenance.Daily{Days: int(value(s.Daily.IntervalDays))}
	}
	if s.Weekly != nil {
		r.Weekly = &maintenance.Weekly{Weeks: int(value(s.Weekly.IntervalWeeks)), Day: string(value(s.Weekly.DayOfWeek))}
	}
	if m := s.AbsoluteMonthly; m != nil {
		r.AbsoluteMonthly = &maintenance.AbsoluteMonthly{Months: int(value(m.IntervalMonths)), Day: int(value(m.DayOfMonth))}
	}
	if m := s.RelativeMonthly; m != nil {
		r.RelativeMonthly = &maintenance.RelativeMonthly{Months: int(value(m.IntervalMonths)), Index: string(value(m.WeekIndex)), Day: string(value(m.DayOfWeek))}
	}
	return r
}

// windowed is a calendar with the name of the configuration it is from, "" of a
// time that the cluster has of its own.
type windowed struct {
	*maintenance.Calendar
	name string
}

// configured reads the cluster's maintenance configurations, by name.
func (p *Provider) configured(ctx context.Context, w *whole) (map[string]windowed, error) {
	documents, _, err := arm.ListDocuments(ctx, p.Store, w.doc.ID, maintenanceType)
	if err != nil {
		return nil, fmt.Errorf("maintenance of %s: %w", w.doc.ID, err)
	}
	found := map[string]windowed{}
	for _, d := range documents {
		body, err := arm.ViewBase(d)
		if err != nil {
			return nil, err
		}
		for _, name := range maintenance.Names() {
			if !strings.EqualFold(name, d.Name) {
				continue
			}
			calendar, err := calendarOf(name, body)
			if err != nil {
				// It was checked when it came: whatever it is now, nothing begins by it.
				return nil, fmt.Errorf("maintenance configuration %s: %w", d.ID, err)
			}
			found[name] = windowed{calendar, name}
		}
	}
	return found, nil
}

// choose is the first configuration there is of some names, else a calendar of
// the cluster's own.
func choose(configured map[string]windowed, own *maintenance.Calendar, names ...string) windowed {
	for _, name := range names {
		if c, is := configured[name]; is {
			return c
		}
	}
	return windowed{Calendar: own}
}

// The windows that a cluster has of its own, where it isn't told another time.
const (
	ownHours  = 4  // how long they are
	aptHour   = 6  // Debian's own timer for updates, UTC
	nightFrom = 22 // the other windows begin from then on, UTC
	nightLong = 5  // hours in which they begin
)

// jitter is a number below n that a cluster keeps: not all do the same at once.
func (s *clusterState) jitter(what string, n int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(what + s.UID)) // a hash doesn't fail
	return int(h.Sum32() % uint32(n))
}

func (s *clusterState) nightly() *maintenance.Calendar {
	return maintenance.Daytime((nightFrom*60+s.jitter("night", nightLong*60))%(24*60), ownHours, 0, false)
}

func (s *clusterState) weekly() *maintenance.Calendar {
	return maintenance.Daytime((nightFrom*60+s.jitter("night", nightLong*60))%(24*60), ownHours, time.Weekday(s.jitter("day", 7)), true)
}

func (s *clusterState) morning() *maintenance.Calendar {
	return maintenance.Daytime(aptHour*60+s.jitter("apt", 60), ownHours, 0, false)
}

// maintainedMost bounds how many windows are remembered of each kind.
const maintainedMost = 16

// maintained is what was begun in a window. Windows are known by when they
// begin, not by their order: a clock that went ahead and came back neither
// repeats one nor loses those in between.
type maintained struct {
	Kind   string    `json:"kind"`
	Window time.Time `json:"window"`
	What   string    `json:"what"`
	// Refused is why it couldn't begin, for as long as that window lasts.
	Refused string `json:"refused,omitempty"`
}

// maintained tells what was begun in a window of a kind.
func (s *clusterState) maintained(kind string, window time.Time) (maintained, bool) {
	for _, m := range s.Maintained {
		if m.Kind == kind && m.Window.Equal(window) {
			return m, true
		}
	}
	return maintained{}, false
}

// remember notes what was begun in a window; the oldest of its kind is forgotten.
func (s *clusterState) remember(m maintained) {
	m.Window = m.Window.UTC()
	kept := slices.Clone(s.Maintained)
	same := 0
	for _, other := range kept {
		if other.Kind == m.Kind {
			same++
		}
	}
	if same >= maintainedMost {
		i := slices.IndexFunc(kept, func(other maintained) bool { return other.Kind == m.Kind })
		kept = slices.Delete(kept, i, i+1)
	}
	s.Maintained = append(kept, m)
}

// names lists pools for people.
func (u upgrade) names() []string {
	names := map[string]bool{}
	for _, p := range u.Pools {
		names[p.Name] = true
	}
	return slices.Sorted(maps.Keys(names))
}
