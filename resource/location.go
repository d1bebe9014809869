// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"slices"
	"strings"
)

// Location is an Azure region. An instance calls itself by one; the table exists
// so that clients' names for regions are understood and misspelt ones refused.
type Location struct {
	Name      string // "eastus"
	Display   string // "East US"
	Group     string // the geography group: "US"
	Latitude  string
	Longitude string
	Paired    string // the paired region's name, "" when there is none
}

// Locations lists the regions of public Azure, by name.
func Locations() []Location { return slices.Clone(locations()) }

// NormalizeLocation turns "East US", "EastUS" or "eastus" into "eastus". It doesn't check that the region exists.
func NormalizeLocation(s string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
}

// FindLocation finds a region by its name or display name.
func FindLocation(s string) (Location, bool) {
	name := NormalizeLocation(s)
	all := locations()
	i := slices.IndexFunc(all, func(l Location) bool { return l.Name == name })
	if i < 0 {
		return Location{}, false
	}
	return all[i], true
}

func locations() []Location {
	return []Location{
		{"australiacentral", "Australia Central", "Asia Pacific", "-35.3075", "149.1244", "australiacentral2"},
		{"australiacentral2", "Australia Central 2", "Asia Pacific", "-35.3075", "149.1244", "australiacentral"},
		{"australiaeast", "Australia East", "Asia Pacific", "-33.86", "151.2094", "australiasoutheast"},
		{"australiasoutheast", "Australia Southeast", "Asia Pacific", "-37.8136", "144.9631", "australiaeast"},
		{"austriaeast", "Austria East", "Europe", "48.2201", "16.3797", ""},
		{"belgiumcentral", "Belgium Central", "Europe", "50.8503", "4.3517", ""},
		{"brazilsouth", "Brazil South", "South America", "-23.55", "-46.633", "southcentralus"},
		{"brazilsoutheast", "Brazil Southeast", "South America", "-22.9068", "-43.1729", "brazilsouth"},
		{"canadacentral", "Canada Central", "Canada", "43.653", "-79.383", "canadaeast"},
		{"canadaeast", "Canada East", "Canada", "46.817", "-71.217", "canadacentral"},
		{"centralindia", "Central India", "Asia Pacific", "18.5822", "73.9197", "southindia"},
		{"centralus", "Central US", "US", "41.5908", "-93.6208", "eastus2"},
		{"chilecentral", "Chile Central", "South America", "-33.4489", "-70.6693", ""},
		{"eastasia", "East Asia", "Asia Pacific", "22.267", "114.188", "southeastasia"},
		{"eastus", "East US", "US", "37.3719", "-79.8164", "westus"},
		{"eastus2", "East US 2", "US", "36.6681", "-78.3889", "centralus"},
		{"francecentral", "France Central", "Europe", "46.3772", "2.373", "francesouth"},
		{"francesouth", "France South", "Europe", "43.8345", "2.1972", "francecentral"},
		{"germanynorth", "Germany North", "Europe", "53.0738", "8.8064", "germanywestcentral"},
		{"germanywestcentral", "Germany West Central", "Europe", "50.1109", "8.6821", "germanynorth"},
		{"indonesiacentral", "Indonesia Central", "Asia Pacific", "-6.1987", "106.7984", ""},
		{"israelcentral", "Israel Central", "Middle East", "31.2656", "33.4506", ""},
		{"italynorth", "Italy North", "Europe", "45.4684", "9.1811", ""},
		{"japaneast", "Japan East", "Asia Pacific", "35.68", "139.77", "japanwest"},
		{"japanwest", "Japan West", "Asia Pacific", "34.6939", "135.5022", "japaneast"},
		{"jioindiacentral", "Jio India Central", "Asia Pacific", "21.1466", "79.0888", "jioindiawest"},
		{"jioindiawest", "Jio India West", "Asia Pacific", "22.4707", "70.0577", "jioindiacentral"},
		{"koreacentral", "Korea Central", "Asia Pacific", "37.5665", "126.978", "koreasouth"},
		{"koreasouth", "Korea South", "Asia Pacific", "35.1796", "129.0756", "koreacentral"},
		{"malaysiawest", "Malaysia West", "Asia Pacific", "3.1402", "101.698", ""},
		{"mexicocentral", "Mexico Central", "Mexico", "20.5888", "-100.3899", ""},
		{"newzealandnorth", "New Zealand North", "Asia Pacific", "-36.8485", "174.7633", ""},
		{"northcentralus", "North Central US", "US", "41.8819", "-87.6278", "southcentralus"},
		{"northeurope", "North Europe", "Europe", "53.3478", "-6.2597", "westeurope"},
		{"norwayeast", "Norway East", "Europe", "59.9139", "10.7522", "norwaywest"},
		{"norwaywest", "Norway West", "Europe", "58.97", "5.7331", "norwayeast"},
		{"polandcentral", "Poland Central", "Europe", "52.2334", "21.0141", ""},
		{"qatarcentral", "Qatar Central", "Middle East", "25.5519", "51.4391", ""},
		{"southafricanorth", "South Africa North", "Africa", "-25.7313", "28.2184", "southafricawest"},
		{"southafricawest", "South Africa West", "Africa", "-34.0757", "18.8433", "southafricanorth"},
		{"southcentralus", "South Central US", "US", "29.4167", "-98.5", "northcentralus"},
		{"southeastasia", "Southeast Asia", "Asia Pacific", "1.283", "103.833", "eastasia"},
		{"southindia", "South India", "Asia Pacific", "12.9822", "80.1636", "centralindia"},
		{"spaincentral", "Spain Central", "Europe", "40.4259", "-3.4209", ""},
		{"swedencentral", "Sweden Central", "Europe", "60.6749", "17.1413", "swedensouth"},
		{"swedensouth", "Sweden South", "Europe", "55.6059", "13.0007", "swedencentral"},
		{"switzerlandnorth", "Switzerland North", "Europe", "47.4515", "8.5646", "switzerlandwest"},
		{"switzerlandwest", "Switzerland West", "Europe", "46.2044", "6.1432", "switzerlandnorth"},
		{"uaecentral", "UAE Central", "Middle East", "24.4667", "54.3667", "uaenorth"},
		{"uaenorth", "UAE North", "Middle East", "25.2663", "55.3167", "uaecentral"},
		{"uksouth", "UK South", "Europe", "50.941", "-0.799", "ukwest"},
		{"ukwest", "UK West", "Europe", "53.427", "-3.084", "uksouth"},
		{"westcentralus", "West Central US", "US", "40.89", "-110.234", "westus2"},
		{"westeurope", "West Europe", "Europe", "52.3667", "4.9", "northeurope"},
		{"westindia", "West India", "Asia Pacific", "19.088", "72.868", "southindia"},
		{"westus", "West US", "US", "37.783", "-122.417", "eastus"},
		{"westus2", "West US 2", "US", "47.233", "-119.852", "westcentralus"},
		{"westus3", "West US 3", "US", "33.4484", "-112.074", "eastus"},
	}
}
