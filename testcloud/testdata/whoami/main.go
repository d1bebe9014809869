// SPDX-License-Identifier: Apache-2.0

// Command whoami asks the metadata address of the machine that it runs on, with
// the Azure SDK and without. It runs in virtual machines and nodes of tests.
//
//	whoami token SCOPE [CLIENT-ID | RESOURCE-ID]   an access token, by azidentity
//	whoami get PATH [HEADER=VALUE …]               status and body
//	whoami time PATH COUNT                         microseconds at the median and at 99 %
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

const address = "http://169.254.169.254"

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: whoami token|get|time …")
	}
	switch args[0] {
	case "token":
		return token(args[1], strings.Join(args[2:], ""))
	case "get":
		status, body, err := ask(args[1], args[2:])
		if err == nil {
			fmt.Printf("%d %s", status, body)
		}
		return err
	case "time":
		count, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		return measure(args[1], count)
	}
	return fmt.Errorf("what is %s?", args[0])
}

func token(scope, who string) error {
	options := &azidentity.ManagedIdentityCredentialOptions{}
	switch {
	case strings.HasPrefix(who, "/"):
		options.ID = azidentity.ResourceID(who)
	case who != "":
		options.ID = azidentity.ClientID(who)
	}
	credential, err := azidentity.NewManagedIdentityCredential(options)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	t, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err != nil {
		return err
	}
	fmt.Print(t.Token)
	return nil
}

var client = http.Client{Timeout: 5 * time.Second}

func ask(path string, headers []string) (int, string, error) {
	req, err := http.NewRequest(http.MethodGet, address+path, nil)
	if err != nil {
		return 0, "", err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, "=")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// measure stays under the limit of requests.
func measure(path string, count int) error {
	var took []time.Duration
	for range count {
		start := time.Now()
		status, body, err := ask(path, []string{"Metadata=true"})
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("%d %s %w", status, body, err)
		}
		took = append(took, time.Since(start))
		time.Sleep(60 * time.Millisecond)
	}
	slices.Sort(took)
	fmt.Printf("%d %d", took[count/2].Microseconds(), took[count*99/100].Microseconds())
	return nil
}
