// SPDX-License-Identifier: Apache-2.0

// Command echo tells who asked whom, over TCP (HTTP) and UDP; with the argument
// "get" it asks others, as "metadata" its machine's metadata address. It runs in pods and virtual machines of tests.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "get" {
		if err := get(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "metadata" {
		if err := metadata(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	log.Fatal(serve())
}

// metadata prints what the metadata address answers at a path.
func metadata(path string) error {
	req, err := http.NewRequest(http.MethodGet, "http://169.254.169.254"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Metadata", "true")
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

func get(url string) error {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

func serve() error {
	ports := []string{"8080"}
	if p := os.Getenv("PORTS"); p != "" {
		ports = strings.Split(p, ",")
	}
	failed := make(chan error)
	for _, port := range ports {
		go func() { failed <- udp(":" + port) }()
		go func() { failed <- http.ListenAndServe(":"+port, http.HandlerFunc(answer)) }()
	}
	return <-failed
}

func said(client, server string) []byte {
	name, _ := os.Hostname()
	text, _ := json.Marshal(map[string]string{"pod": name, "node": os.Getenv("NODE"), "client": client, "server": server})
	return text
}

// answer says who asks; /hold keeps the connection, /health is there and no other path is.
func answer(w http.ResponseWriter, r *http.Request) {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	switch r.URL.Path {
	case "/", "/health":
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	_, _ = fmt.Fprintf(w, "%s\n", said(r.RemoteAddr, local.String()))
}

func udp(address string) error {
	conn, err := net.ListenPacket("udp4", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	buffer := make([]byte, 2048)
	for {
		_, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(said(from.String(), ""), from); err != nil {
			return err
		}
	}
}
