// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v8"
)

// fill sets every field of a model, as deep as depth: some models hold their own kind.
func fill(v reflect.Value, depth int) {
	if depth == 0 {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth-1)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth-1)
			}
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth-1)
	case reflect.Map:
		element := reflect.New(v.Type().Elem()).Elem()
		fill(element, depth-1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), element)
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(1.5)
	}
}

// What the SDK writes with every field set must be known, by its own models:
// so field names do stand for the names on the wire.
func TestTheSDKsOwnBodiesAreKnown(t *testing.T) {
	for _, model := range []any{&armcontainerservice.ManagedCluster{}, &armcontainerservice.AgentPool{}, &armcontainerservice.MaintenanceConfiguration{}} {
		fill(reflect.ValueOf(model).Elem(), 14)
		raw, err := json.Marshal(model)
		if err != nil {
			t.Fatal(err)
		}
		body, err := decodeObject(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range UnknownFields(body, model) {
			t.Errorf("%T: %s", model, p.Message)
		}
		if len(raw) < 500 {
			t.Errorf("%T fills to %s only", model, raw)
		}
	}
}

// A name that resembles a property's, but isn't it, would be ignored: so it is refused.
func TestAlmostANameIsUnknown(t *testing.T) {
	body := map[string]any{"dns-prefix": "x", "properties": map[string]any{"dns-prefix": "x", "autoScalerProfile": map[string]any{"scanInterval": "10s", "Scan-Interval": "10s"}}}
	var targets []string
	for _, p := range UnknownFields(body, &armcontainerservice.ManagedCluster{}) {
		targets = append(targets, p.Target)
	}
	if want := []string{"dns-prefix", "properties.autoScalerProfile.scanInterval", "properties.dns-prefix"}; !slices.Equal(targets, want) {
		t.Errorf("refused %v, want %v", targets, want)
	}
}

func BenchmarkUnknownFields(b *testing.B) {
	model := &armcontainerservice.ManagedCluster{}
	fill(reflect.ValueOf(model).Elem(), 14)
	raw, err := json.Marshal(model)
	if err != nil {
		b.Fatal(err)
	}
	body, err := decodeObject(raw)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		UnknownFields(body, model)
	}
}
