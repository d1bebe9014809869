// SPDX-License-Identifier: Apache-2.0

package autoscale

import (
	"fmt"
	"hash/fnv"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// expendable pods are worth no node: cluster-autoscaler's cut-off.
const expendable = -10

// option is what one pool could do for pods.
type option struct {
	pool  *Pool
	nodes int
	pods  []*Pod
	waste float64 // the share of the new nodes that stays free, cpu and memory added
}

// grow wants nodes for the pods that have no place.
func (d *decider) grow() {
	for i := range d.Pools {
		if pool := &d.Pools[i]; pool.Count < pool.Min {
			d.Want[pool.Name] = pool.Min
			for n := range pool.Min - pool.Count {
				d.board.add(coming(pool, fmt.Sprintf("least-%s-%d", pool.Name, n), d.Daemons))
			}
		}
	}
	left := d.homeless()
	for len(left) > 0 {
		options := d.options(left)
		if len(options) == 0 {
			break
		}
		chosen := d.choose(options)
		left = d.take(chosen, left)
	}
	for _, pod := range left {
		d.Unhelped[pod.Key()] = d.why(pod)
	}
	if len(d.Want) > 0 {
		d.Decision.Memory.Added = d.Now
	}
}

// homeless are the pods that don't fit on what is there and comes.
func (d *decider) homeless() []*Pod {
	var left []*Pod
	pending := slices.Clone(d.Pending)
	decreasing(pending)
	for _, pod := range pending {
		if pod.Priority < expendable || pod.Ending {
			continue
		}
		if ripe := pod.Since.Add(d.Profile.PodDelay); ripe.After(d.Now) {
			d.due(ripe)
			continue
		}
		if d.board.first(pod, d.board.places) == nil {
			left = append(left, pod)
		}
	}
	return left
}

// count is how many nodes a pool would have by now.
func (d *decider) count(pool *Pool) int { return max(pool.Count, d.Want[pool.Name]) }

// barred says why a pool can't grow.
func (d *decider) barred(pool *Pool) string {
	switch {
	case d.count(pool) >= pool.Max:
		return "max node group size reached"
	case d.Decision.Memory.Pools[pool.Name].Until.After(d.Now):
		return "in backoff after failed scale-up"
	}
	return ""
}

func (d *decider) options(left []*Pod) []*option {
	var options []*option
	for i := range d.Pools {
		if pool := &d.Pools[i]; d.barred(pool) == "" {
			if o := d.pack(pool, left, false); len(o.pods) > 0 {
				options = append(options, o)
			}
		}
	}
	return options
}

// pack puts pods on new nodes of a pool, the first that fits; unless they stay,
// the nodes are taken off the board again.
func (d *decider) pack(pool *Pool, pods []*Pod, stay bool) *option {
	o := &option{pool: pool}
	begin := len(d.board.places)
	room := d.room(pool)
	for _, pod := range pods {
		if d.board.first(pod, d.board.places[begin:]) != nil {
			o.pods = append(o.pods, pod)
			continue
		}
		if o.nodes >= room {
			continue
		}
		d.board.add(coming(pool, fmt.Sprintf("new-%s-%d", pool.Name, d.count(pool)+o.nodes), d.Daemons))
		if d.board.first(pod, d.board.places[begin+o.nodes:]) == nil {
			d.board.drop()
			continue
		}
		o.nodes++
		o.pods = append(o.pods, pod)
	}
	for _, p := range d.board.places[begin:] {
		o.waste += share(p.free, p.total, cpuName) + share(p.free, p.total, memoryName)
	}
	o.waste /= float64(max(1, o.nodes))
	for n := 0; n < o.nodes && !stay; n++ {
		d.board.drop()
	}
	return o
}

func share(part, whole Resources, name string) float64 {
	if whole[name] <= 0 {
		return 0
	}
	return float64(part[name]) / float64(whole[name])
}

// room is how many nodes a pool, and those that it is balanced with, can have more.
func (d *decider) room(pool *Pool) int {
	n := 0
	for _, p := range d.alike(pool) {
		n += p.Max - d.count(p)
	}
	return n
}

// alike are the pools that new nodes are spread over: the pool itself, and with
// balancing those of the same template.
func (d *decider) alike(pool *Pool) []*Pool {
	var found []*Pool
	for i := range d.Pools {
		p := &d.Pools[i]
		if p == pool || d.Profile.Balance && d.barred(p) == "" && similar(&p.Template, &pool.Template) {
			found = append(found, p)
		}
	}
	return found
}

// similar compares templates but for what names the pool or the node's image.
func similar(a, b *Template) bool {
	return a.CPU == b.CPU && a.Memory == b.Memory && a.Pods == b.Pods && slices.Equal(a.Taints, b.Taints) && maps.Equal(general(a.Labels), general(b.Labels))
}

func general(labels map[string]string) map[string]string {
	kept := maps.Clone(labels)
	for _, own := range []string{"agentpool", "kubernetes.azure.com/agentpool", "kubernetes.azure.com/mode", "kubernetes.azure.com/node-image-version", hostnameLabel} {
		delete(kept, own)
	}
	return kept
}

// take has the chosen pool grow, and returns the pods that still have no place.
func (d *decider) take(o *option, left []*Pod) []*Pod {
	pools := d.alike(o.pool)
	done := d.pack(o.pool, left, true)
	for range done.nodes {
		least := slices.MinFunc(pools, func(a, b *Pool) int {
			return (d.count(a) + full(d, a)) - (d.count(b) + full(d, b))
		})
		d.Want[least.Name] = d.count(least) + 1
	}
	helped := map[*Pod]bool{}
	for _, pod := range done.pods {
		helped[pod] = true
	}
	var grown []string
	for _, p := range pools {
		if want, is := d.Want[p.Name]; is {
			grown = append(grown, fmt.Sprintf("{%s %d->%d (max: %d)}", p.Name, p.Count, want, p.Max))
		}
	}
	var still []*Pod
	for _, pod := range left {
		if helped[pod] {
			d.Helped[pod.Key()] = "[" + strings.Join(grown, " ") + "]"
		} else {
			still = append(still, pod)
		}
	}
	return still
}

// full puts a pool without room behind all others.
func full(d *decider, p *Pool) int {
	if d.count(p) >= p.Max {
		return 1 << 20
	}
	return 0
}

// choose is the expander.
func (d *decider) choose(options []*option) *option {
	best := options
	keep := func(better func(a, b *option) bool) {
		top := options[0]
		for _, o := range options {
			if better(o, top) {
				top = o
			}
		}
		best = slices.DeleteFunc(slices.Clone(options), func(o *option) bool { return better(top, o) })
	}
	switch d.Profile.Expander {
	case LeastWaste:
		keep(func(a, b *option) bool { return a.waste < b.waste })
	case MostPods:
		keep(func(a, b *option) bool { return len(a.pods) > len(b.pods) })
	case ByPriority:
		if named := slices.DeleteFunc(slices.Clone(options), func(o *option) bool { _, is := d.priority(o.pool.Name); return !is }); len(named) > 0 {
			options = named
			keep(func(a, b *option) bool {
				one, _ := d.priority(a.pool.Name)
				other, _ := d.priority(b.pool.Name)
				return one > other
			})
		}
	}
	return best[d.draw(len(best))]
}

// priority is a pool's highest.
func (d *decider) priority(pool string) (int, bool) {
	value, found := 0, false
	for _, p := range d.Priorities {
		// (A pattern that is none matches nothing; Go's take time in the length of the text.)
		if form, err := regexp.Compile(p.Pattern); err == nil && form.MatchString(pool) && (!found || p.Value > value) {
			value, found = p.Value, true
		}
	}
	return value, found
}

// draw chooses one of n by chance, which is another one only when the pools are
// other ones: a wish that isn't fulfilled yet stays the same.
func (d *decider) draw(n int) int {
	h := fnv.New32a()
	for i := range d.Pools {
		fmt.Fprintf(h, "%s %d %d;", d.Pools[i].Name, d.Pools[i].Count, d.Want[d.Pools[i].Name])
	}
	return int(h.Sum32() % uint32(n))
}

// why says for a pod how many pools can't help it for which reason.
func (d *decider) why(pod *Pod) string {
	counts := map[string]int{}
	for i := range d.Pools {
		pool := &d.Pools[i]
		p := coming(pool, "new", d.Daemons)
		d.board.add(p)
		reason := d.board.fits(pod, p)
		d.board.drop()
		if reason == "" {
			reason = d.barred(pool)
		}
		counts[reason]++
	}
	var texts []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		texts = append(texts, fmt.Sprintf("%d %s", counts[reason], reason))
	}
	return strings.Join(texts, ", ")
}
