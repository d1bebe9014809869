// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // x5t is a certificate's SHA-1 by RFC 7515; what counts is the key
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"bastide.dev/fault"
)

// Bounds of an application.
const (
	maxSecretLife   = 10 * 366 * 24 * time.Hour
	maxCredentials  = 100
	maxURIs         = 50
	maxRedirects    = 250
	maxPermissions  = 250
	maxFederated    = 20
	minRSABits      = 2048
	maxCertificate  = 16 << 10
	maxFederateText = 600
)

// checkApplication finds all that is wrong with an application; had are the
// identifier URIs that it has already.
func (d *Directory) checkApplication(a Application, had []string) []*fault.Error {
	var problems []*fault.Error
	if a.DisplayName == "" || len(a.DisplayName) > 256 {
		problems = append(problems, badValue("displayName", "Property displayName on the application is invalid: it has 1 to 256 characters."))
	}
	problems = append(problems, checkTexts(a)...)
	problems = append(problems, d.checkURIs(a, had)...)
	problems = append(problems, checkRedirects("web.redirectUris", a.WebRedirectURIs, false)...)
	problems = append(problems, checkRedirects("spa.redirectUris", a.SPARedirectURIs, false)...)
	problems = append(problems, checkRedirects("publicClient.redirectUris", a.RedirectURIs, true)...)
	problems = append(problems, checkPermissions(a)...)
	problems = append(problems, checkFederated(a.Federated)...)
	if !slices.Contains([]string{"", "None", "SecurityGroup", "All"}, a.GroupClaims) {
		problems = append(problems, badValue("groupMembershipClaims", "The groupMembershipClaims '%s' are not None, SecurityGroup or All.", printable(a.GroupClaims)))
	}
	return append(problems, checkCredentials(a.Secrets, a.Certificates)...)
}

// checkURIs lets an application have addresses of its own only: api:// of its
// app id, or of the tenant's domain, so that nobody stands in for another.
func (d *Directory) checkURIs(a Application, had []string) []*fault.Error {
	var problems []*fault.Error
	if len(a.IdentifierURIs) > maxURIs {
		return []*fault.Error{badValue("identifierUris", "An application has at most %d identifierUris.", maxURIs)}
	}
	tenant, _ := d.objects.tenant()
	for i, uri := range a.IdentifierURIs {
		if slices.Contains(a.IdentifierURIs[:i], uri) {
			problems = append(problems, badValue("identifierUris", "The identifierUri '%s' is named twice.", printable(uri)))
		}
		if slices.Contains(had, uri) {
			continue
		}
		u, err := url.Parse(uri)
		if err != nil || uri != printable(uri) || u.User != nil || u.Fragment != "" || u.RawQuery != "" || u.Host == "" || strings.HasSuffix(uri, "/") {
			problems = append(problems, badValue("identifierUris", "The identifierUri '%s' is not a URI without query, fragment and trailing slash.", printable(uri)))
			continue
		}
		host, own := strings.ToLower(u.Hostname()), strings.ToLower(tenant.Domain)
		ours := host == own || strings.HasSuffix(host, "."+own)
		switch {
		case u.Scheme == "api" && (host == a.AppID || host == tenant.ID || uuid.Validate(host) != nil):
			if uuid.Validate(host) != nil && !ours && strings.Contains(host, ".") {
				problems = append(problems, foreignURI(uri))
			}
		case u.Scheme == "https" && ours && !d.isService(host):
		default:
			problems = append(problems, foreignURI(uri))
		}
		if owner, taken := d.objects.uriOwner(uri); taken && owner != a.ID {
			problems = append(problems, uriTaken(uri))
		}
	}
	return problems
}

func foreignURI(uri string) *fault.Error {
	return fault.New(fault.Invalid, "HostNameNotOnVerifiedDomain", "Values of identifierUris property must use a verified domain of the organization or its subdomain, or api:// and the application's id or a name: '%s'.", printable(uri)).At("identifierUris")
}

// isService says whether a host is one of the instance's own services: an
// application of that address would be asked for in their place.
func (d *Directory) isService(host string) bool {
	e := d.config.Endpoints
	for _, endpoint := range []string{e.Authority, e.ResourceManager, e.Graph, e.Registry} {
		if u, err := url.Parse(endpoint); err == nil && strings.EqualFold(u.Hostname(), host) {
			return true
		}
	}
	return false
}

func (o *objects) tenant() (Tenant, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if t, ok := o.values[tenantKey].(*Tenant); ok {
		return *t, true
	}
	return Tenant{}, false
}

func (o *objects) uriOwner(uri string) (string, bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	key, found := o.uris[strings.ToLower(uri)]
	return strings.TrimPrefix(key, applications), found
}

// checkRedirects lets answers go to https, to this machine's loopback, and, of a
// program that is installed, to a scheme of its own. No wildcards.
func checkRedirects(property string, uris []string, installed bool) []*fault.Error {
	var problems []*fault.Error
	if len(uris) > maxRedirects {
		return []*fault.Error{badValue(property, "There are at most %d redirectUris of a kind.", maxRedirects)}
	}
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil || len(uri) > 256 || uri != printable(uri) || u.Scheme == "" || u.User != nil || u.Fragment != "" || strings.ContainsAny(uri, "*#\\") {
			problems = append(problems, badValue(property, "The redirectUri '%s' is not an absolute URI without user, fragment and wildcard, of at most 256 characters.", printable(uri)))
			continue
		}
		local := u.Hostname() == "localhost"
		if address, err := netip.ParseAddr(u.Hostname()); err == nil && address.IsLoopback() {
			local = true
		}
		switch scheme := strings.ToLower(u.Scheme); {
		case scheme == "https" && u.Host != "", scheme == "http" && local:
		case installed && !slices.Contains([]string{"http", "https", "javascript", "data", "vbscript", "file", "blob", "about"}, scheme):
		default:
			problems = append(problems, badValue(property, "The redirectUri '%s' has to be https, or http to localhost.", printable(uri)))
		}
	}
	return problems
}

var permissionValue = regexp.MustCompile("^[A-Za-z0-9!#$%&'()*+,\\-./:;<=>?@\\[\\]^_`{|}~]{1,120}$")

func checkPermissions(a Application) []*fault.Error {
	var problems []*fault.Error
	if len(a.AppRoles)+len(a.Scopes) > maxPermissions || len(a.Required) > 50 || len(a.PreAuthorized) > 100 {
		return []*fault.Error{fault.New(fault.Invalid, "Directory_QuotaExceeded", "An application has at most %d roles and scopes, 50 requiredResourceAccess and 100 preAuthorizedApplications.", maxPermissions)}
	}
	ids, values := map[string]bool{}, map[string]bool{}
	check := func(property, kind, id, value string) {
		if uuid.Validate(id) != nil || ids[strings.ToLower(id)] {
			problems = append(problems, badValue(property, "The id '%s' is not a GUID, or is there twice.", printable(id)))
		}
		if value != "" && (!permissionValue.MatchString(value) || values[kind+value] || strings.HasPrefix(value, ".")) {
			problems = append(problems, badValue(property, "The value '%s' isn't valid, or is there twice.", printable(value)))
		}
		ids[strings.ToLower(id)], values[kind+value] = true, true
	}
	for _, r := range a.AppRoles {
		check("appRoles", "role ", r.ID, r.Value)
		known := func(kind string) bool { return kind == "User" || kind == "Application" }
		if r.DisplayName == "" || len(r.Members) == 0 || slices.ContainsFunc(r.Members, func(k string) bool { return !known(k) }) {
			problems = append(problems, badValue("appRoles", "The app role '%s' needs a displayName, and allowedMemberTypes of User and Application.", printable(r.Value)))
		}
		problems = append(problems, checkTexts(r)...)
	}
	for _, s := range a.Scopes {
		check("api.oauth2PermissionScopes", "scope ", s.ID, s.Value)
		if s.Value == "" || s.Type != "User" && s.Type != "Admin" {
			problems = append(problems, badValue("api.oauth2PermissionScopes", "The scope '%s' needs a value, and the type User or Admin.", printable(s.Value)))
		}
		problems = append(problems, checkTexts(s)...)
	}
	for _, r := range a.Required {
		if uuid.Validate(r.ResourceAppID) != nil || len(r.Access) > 200 {
			problems = append(problems, badValue("requiredResourceAccess", "The resourceAppId '%s' is not a GUID, or has more than 200 permissions.", printable(r.ResourceAppID)))
		}
		for _, p := range r.Access {
			if uuid.Validate(p.ID) != nil || p.Type != "Scope" && p.Type != "Role" {
				problems = append(problems, badValue("requiredResourceAccess", "A resourceAccess has a GUID as id and the type Scope or Role."))
			}
		}
	}
	for _, p := range a.PreAuthorized {
		if uuid.Validate(p.AppID) != nil || slices.ContainsFunc(p.ScopeIDs, func(id string) bool {
			return !slices.ContainsFunc(a.Scopes, func(s Scope) bool { return s.ID == id })
		}) {
			problems = append(problems, badValue("api.preAuthorizedApplications", "A pre-authorized application has a GUID as appId, and permissions of this application."))
		}
	}
	return problems
}

func checkCredentials(secrets []Secret, certificates []Certificate) []*fault.Error {
	if len(secrets)+len(certificates) > maxCredentials {
		return []*fault.Error{fault.New(fault.Invalid, "Directory_QuotaExceeded", "An object has at most %d credentials.", maxCredentials).At("passwordCredentials")}
	}
	var problems []*fault.Error
	for _, s := range secrets {
		problems = append(problems, checkText("passwordCredentials.displayName", s.Name)...)
	}
	for i, c := range certificates {
		problems = append(problems, checkText("keyCredentials.displayName", c.Name)...)
		if slices.ContainsFunc(certificates[:i], func(o Certificate) bool { return string(o.SHA256) == string(c.SHA256) || o.ID == c.ID }) {
			problems = append(problems, badValue("keyCredentials", "The certificate %s is there twice.", hex.EncodeToString(c.SHA1)))
		}
	}
	return problems
}

// NewCertificate reads a client's certificate. Keys are RSA, as Entra ID's are.
func NewCertificate(der []byte, id, name string) (Certificate, error) {
	if len(der) > maxCertificate {
		return Certificate{}, badValue("keyCredentials.key", "The certificate is longer than %d bytes.", maxCertificate)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return Certificate{}, badValue("keyCredentials.key", "The key is not an X.509 certificate in DER.").Because(err)
	}
	key, ok := parsed.PublicKey.(*rsa.PublicKey)
	if !ok || key.Size()*8 < minRSABits {
		return Certificate{}, badValue("keyCredentials.key", "The certificate's key is not RSA of at least %d bits.", minRSABits)
	}
	if id == "" {
		id = uuid.NewString()
	} else if uuid.Validate(id) != nil {
		return Certificate{}, badValue("keyCredentials.keyId", "The keyId '%s' is not a GUID.", printable(id))
	}
	if name == "" {
		name = "CN=" + parsed.Subject.CommonName
	}
	short, long := sha1.Sum(der), sha256.Sum256(der) //nolint:gosec // see the import
	return Certificate{ID: strings.ToLower(id), Name: name, SHA1: short[:], SHA256: long[:], DER: der,
		Starts: parsed.NotBefore.UTC(), Expires: parsed.NotAfter.UTC()}, nil
}

var federatedName = regexp.MustCompile(`^[a-zA-Z0-9][-_a-zA-Z0-9]{2,119}$`)

func checkFederated(all []FederatedCredential) []*fault.Error {
	if len(all) > maxFederated {
		return []*fault.Error{fault.New(fault.Invalid, "Directory_QuotaExceeded", "An application has at most %d federatedIdentityCredentials.", maxFederated)}
	}
	var problems []*fault.Error
	for i, f := range all {
		at := func(name string) string { return "federatedIdentityCredentials." + name }
		if !federatedName.MatchString(f.Name) {
			problems = append(problems, badValue(at("name"), "The name '%s' isn't 3 to 120 letters, digits, hyphens and underscores, the first a letter or digit.", printable(f.Name)))
		}
		if u, err := url.Parse(f.Issuer); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || strings.Contains(f.Issuer, "#") || len(f.Issuer) > maxFederateText {
			problems = append(problems, badValue(at("issuer"), "The issuer '%s' is not an https URL without user, query and fragment.", printable(f.Issuer)))
		}
		if f.Subject == "" || len(f.Subject) > maxFederateText {
			problems = append(problems, badValue(at("subject"), "The subject has 1 to %d characters.", maxFederateText))
		}
		if len(f.Audiences) != 1 || f.Audiences[0] == "" || len(f.Audiences[0]) > maxFederateText {
			problems = append(problems, badValue(at("audiences"), "There is one audience, of 1 to %d characters.", maxFederateText))
		}
		for _, other := range all[:i] {
			if strings.EqualFold(other.Name, f.Name) || other.Issuer == f.Issuer && other.Subject == f.Subject {
				problems = append(problems, fault.New(fault.Conflict, "Request_MultipleObjectsWithSameKeyValue", "FederatedIdentityCredential with name %s, or with this issuer and subject, already exists.", printable(f.Name)))
			}
		}
		problems = append(problems, checkTexts(f)...)
	}
	return problems
}
