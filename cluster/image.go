// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
)

// ImageTag is a tag of agent pools that keeps the pool at one node image. AKS has
// no property for that but snapshots of pools, which are somebody's to keep; a
// tag passes every client. Without it a pool gets the newest image with each
// version, and when its image is upgraded.
const ImageTag = "bastide-node-image"

// parts are what nodes of a pool are made of: the catalogue's, with the pool's own image.
func (p *Provider) parts(pool Pool) (Parts, error) {
	parts, err := p.Catalogue.Parts(pool.Version.String())
	if err != nil {
		return Parts{}, fmt.Errorf("parts of pool %s: %w", pool.Name, err)
	}
	if pool.Image != "" {
		parts.Image = pool.Image
	}
	return parts, nil
}

// image reads the tag. It may name the image as pools show it, or as it is listed.
func (p *parser) image(tags map[string]*string, was Pool, target string) string {
	if tags == nil {
		return was.Image
	}
	for key, text := range tags {
		if !strings.EqualFold(key, ImageTag) { // as Azure compares the names of tags
			continue
		}
		image := strings.TrimPrefix(value(text), nodeImageName(""))
		if image != was.Image && (p.hasImage == nil || !p.hasImage(image)) {
			p.bad("InvalidParameter", target+"tags."+key, "The node image %q isn't on this instance's machine: `bastide image list` lists those that are.", value(text))
		}
		return image
	}
	return ""
}

// fillImage keeps the tag in a body that leaves tags out.
func fillImage(properties object, pool Pool) {
	if tags, given := get(properties, "tags").(object); pool.Image != "" && (!given || tags == nil) {
		set(properties, "tags", object{ImageTag: pool.Image})
	}
}
