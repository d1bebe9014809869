// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"bastide.dev/drill/linux"
)

// tryTime is how long a connection may take: a packet that is dropped never
// answers, and one that isn't is there within a few milliseconds.
const tryTime = 800 * time.Millisecond

// Terminal is a client on the instance's Internet, with an address of its own.
type Terminal struct {
	Name    string
	ID      string // its resource
	Address netip.Addr
	path    string // of its namespace
}

// Terminal returns the lab's terminal of a name.
func (l *Lab) Terminal(ctx context.Context, name string) (*Terminal, error) {
	return keyed(&l.mu, l.points, name).get(func() (*Terminal, error) {
		if err := l.begin(ctx); err != nil {
			return nil, err
		}
		id := l.id("Bastide.Network/terminals", name)
		answer, err := l.put(ctx, id, ownVersion, object{"properties": object{}})
		if err != nil {
			return nil, err
		}
		address, err := parseAddr(dig(answer, "properties", "address"), "terminal "+name)
		if err != nil {
			return nil, err
		}
		return &Terminal{Name: name, ID: id, Address: address,
			path: filepath.Join(l.Instance.RunDir, "netns", dig(answer, "properties", "namespace"))}, nil
	})
}

// Who names the terminal, with its address.
func (t *Terminal) Who() string { return fmt.Sprintf("terminal %s (%s)", t.Name, t.Address) }

// HTTP asks for the page at an address with its port.
func (t *Terminal) HTTP(ctx context.Context, address string) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	conn, err := linux.Dial(ctx, t.path, address)
	if err != nil {
		return refusal(err)
	}
	defer func() { _ = conn.Close() }()
	body, err := askPage(ctx, conn)
	if err != nil {
		return refusal(err)
	}
	return page(body), nil
}

// askPage speaks the least HTTP there is.
func askPage(ctx context.Context, conn net.Conn) (string, error) {
	if end, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(end)
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	body, err := io.ReadAll(io.LimitReader(conn, 1<<16))
	if len(body) == 0 && err == nil {
		err = errors.New("closed without an answer")
	}
	return string(body), err
}

// page is the result of an answer over HTTP: all that drills ask say who they
// are or whom they see.
func page(body string) Result {
	r := Result{Body: body}
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "hostname: ") || strings.HasPrefix(line, "client: ") {
			r.Worked = true
			r.Got += ", " + line
		}
	}
	if !r.Worked {
		r.Got = ", but none of ours: " + lastLine(body)
	}
	r.Got = "an answer" + r.Got
	return r
}

// refusal is the result of a connection that failed on its way; what failed here
// is an error.
func refusal(err error) (Result, error) {
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Result{Got: "no answer"}, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return Result{Got: "connection refused"}, nil
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return Result{Got: "connection reset"}, nil
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return Result{Got: "no route to host"}, nil
	}
	return Result{}, err
}

// Command runs a program in the terminal's namespace, for at most limit, and
// returns what it printed and its exit code.
func (t *Terminal) Command(ctx context.Context, limit time.Duration, name string, args ...string) (string, int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := linux.Start(t.path, cmd); err != nil {
		return "", 0, fmt.Errorf("%s: %w", name, err)
	}
	err := cmd.Wait()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) && ctx.Err() == nil {
		return out.String(), 0, fmt.Errorf("%s: %w", name, err)
	}
	if ctx.Err() != nil {
		return out.String() + "no answer", -1, nil
	}
	return out.String(), cmd.ProcessState.ExitCode(), nil
}

// TCP opens a connection to an address with its port, and closes it.
func (t *Terminal) TCP(ctx context.Context, address string) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	conn, err := linux.Dial(ctx, t.path, address)
	if err != nil {
		return refusal(err)
	}
	_ = conn.Close()
	return Result{Worked: true, Got: "a connection"}, nil
}

// connect is the attack of opening a connection from a terminal.
func connect(from *Terminal, to, address string) Attack {
	return Attack{From: from.Who(), To: "TCP " + address + " (" + to + ")",
		Try: func(ctx context.Context) (Result, error) { return from.TCP(ctx, address) }}
}

// Server answers on a terminal, so that it is seen where requests come from.
type Server struct {
	Address  netip.AddrPort
	listener net.Listener
	done     sync.WaitGroup
}

// Serve answers HTTP on a port of the terminal until it is closed: with the
// address that each client has as it is seen there.
func (t *Terminal) Serve(ctx context.Context, port uint16) (*Server, error) {
	at := netip.AddrPortFrom(t.Address, port)
	l, err := linux.Listen(ctx, t.path, at.String())
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", t.Who(), err)
	}
	s := &Server{Address: at, listener: l}
	s.done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			s.done.Go(func() { answer(conn) })
		}
	})
	return s, nil
}

func answer(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(line) == "" {
			break
		}
	}
	client, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
	_, _ = fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nclient: %s\n", client)
}

// Partner is a terminal that answers HTTP and tells its clients' addresses.
func (l *Lab) Partner(ctx context.Context, name string) (*Server, error) {
	return keyed(&l.mu, l.servers, name).get(func() (*Server, error) {
		t, err := l.Terminal(ctx, name)
		if err != nil {
			return nil, err
		}
		s, err := t.Serve(ctx, 80)
		if err != nil {
			return nil, err
		}
		l.closing(func() { _ = s.Close() })
		return s, nil
	})
}

// Close ends the server.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.done.Wait()
	return err
}
