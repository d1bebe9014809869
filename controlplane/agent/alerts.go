// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"bastide.dev/reboots"
)

const (
	alertsTime  = 5 * time.Second
	alertsBytes = 4 << 20
	alertsSaid  = 10
)

// alerts are those that stand against any reboot now. Alerts that can't be read
// do too, as with kured.
func (s *session) alerts(ctx context.Context, settings *reboots.Settings) []string {
	if settings.Prometheus == nil {
		return nil
	}
	active, err := s.activeAlerts(ctx, settings)
	if err != nil {
		text := err.Error()
		return []string{"alerts can't be read: " + strings.ToValidUTF8(text[:min(len(text), heldBytes)], "")}
	}
	var some []string
	for _, name := range active[:min(len(active), alertsSaid)] {
		some = append(some, fmt.Sprintf("alert %q is active", name))
	}
	return some
}

// activeAlerts asks Prometheus, through the API server's proxy to services. The
// answer is a workload's: it is bounded, and leads nowhere else.
func (s *session) activeAlerts(ctx context.Context, settings *reboots.Settings) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, alertsTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+alertsPath(settings.Prometheus), nil)
	if err != nil {
		return nil, err
	}
	response, err := s.leaves.http.Do(request)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer func() { _ = response.Body.Close() }() // read as far as it matters
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("Prometheus answers %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, alertsBytes+1))
	if err != nil {
		return nil, err
	}
	if len(body) > alertsBytes {
		return nil, errors.New("Prometheus' answer is too long")
	}
	return activeAlerts(body, settings)
}

func alertsPath(p *reboots.Service) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/services/%s:%s:%s/proxy%s/api/v1/query?%s", p.Namespace, p.Scheme, p.Name, p.Port, p.Path,
		url.Values{"query": {"ALERTS"}}.Encode())
}

// activeAlerts reads Prometheus' answer.
func activeAlerts(body []byte, settings *reboots.Settings) ([]string, error) {
	var answer struct {
		Status string `json:"status"`
		Data   struct {
			Type   string `json:"resultType"`
			Result []struct {
				Metric struct {
					Name  string `json:"alertname"`
					State string `json:"alertstate"`
				} `json:"metric"`
				Value [2]any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" || answer.Data.Type != "vector" {
		return nil, errors.New("Prometheus' answer isn't a list of alerts")
	}
	filter, err := regexp.Compile(settings.AlertFilter)
	if err != nil {
		return nil, err
	}
	var active []string
	for _, r := range answer.Data.Result {
		name := r.Metric.Name
		ignored := settings.AlertFilter != "" && filter.MatchString(name) != settings.AlertFilterMatchOnly
		if name == "" || r.Value[1] == "0" || ignored || settings.AlertFiringOnly && r.Metric.State != "firing" {
			continue
		}
		active = append(active, strings.ToValidUTF8(name[:min(len(name), 128)], ""))
	}
	slices.Sort(active)
	return slices.Compact(active), nil
}
