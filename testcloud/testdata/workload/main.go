// SPDX-License-Identifier: Apache-2.0

// Command workload is a program in a pod that reads from Azure Resource Manager
// as the Azure SDK has it: with no secret, by its workload identity.
//
//	workload wait                  does nothing, so that a test can run the next in its pod
//	workload read KIND URL         GETs the URL with a new credential; KIND is default or workload
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "wait" {
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGTERM)
		<-end
		return
	}
	if len(os.Args) != 4 || os.Args[1] != "read" {
		log.Fatal("usage: workload wait | workload read default|workload URL")
	}
	if err := read(os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func read(kind, address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	credential, err := credentialOf(kind)
	if err != nil {
		return err
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://" + u.Host + "/.default"}})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token.Token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	fmt.Printf("%d %s", response.StatusCode, body)
	return err
}

// credentialOf finds everything but one thing in its environment: that the
// authority isn't one of Microsoft's, which the SDK would ask about otherwise.
func credentialOf(kind string) (azcore.TokenCredential, error) {
	if kind == "workload" {
		return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{DisableInstanceDiscovery: true})
	}
	return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{DisableInstanceDiscovery: true})
}
