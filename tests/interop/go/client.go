// client PROXY HOST:PORT [USER PASSWORD]: standard input to the target, its answer to standard output.
// client PROXY http://…: what the web server answers, by net/http.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

func main() {
	var err error
	if strings.HasPrefix(os.Args[2], "http:") {
		err = fetch(os.Args[1], os.Args[2])
	} else {
		err = pipe(os.Args[1], os.Args[2], os.Args[3:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func pipe(address, target string, login []string) error {
	var auth *proxy.Auth
	if len(login) == 2 {
		auth = &proxy.Auth{User: login[0], Password: login[1]}
	}
	dialer, err := proxy.SOCKS5("tcp", address, auth, proxy.Direct)
	if err != nil {
		return err
	}
	conn, err := dialer.Dial("tcp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, os.Stdin)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	if _, err := io.Copy(os.Stdout, conn); err != nil {
		return err
	}
	return <-sent
}

func fetch(address, target string) error {
	through := &url.URL{Scheme: "socks5", Host: address}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(through)}, Timeout: 20 * time.Second}
	answer, err := client.Get(target)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(os.Stdout, answer.Body)
	return err
}
