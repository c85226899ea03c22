package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/origin"
	"github.com/ultravisor/beacon/policy"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/toolchain"
)

// moduleFile names a .wasm file, or builds one from source.
func moduleFile(ctx context.Context, path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", usagef("module %s: there is no such file or folder", path)
	}
	if err != nil {
		return "", usagef("module %s: %w", path, unwrapPath(err))
	}
	if !info.IsDir() && !toolchain.IsSource(path) {
		return path, nil
	}
	dirs, err := locate("")
	if err != nil {
		return "", err
	}
	return toolchain.Build(ctx, path, dirs.built)
}

// readModule reads a module and sees that it is one: what is signed or pushed by
// mistake is hard to take back.
func readModule(file string) ([]byte, error) {
	f, err := origin.New(origin.Config{MaxSize: maxModule})
	if err != nil {
		return nil, err
	}
	m, err := f.Fetch(context.Background(), file, "")
	if err != nil {
		return nil, err
	}
	if _, err := module.Prepare(m.Binary, module.Options{}); err != nil {
		return nil, beacon.Errorf(beacon.Refused, "module %s: %w", file, err)
	}
	return m.Binary, nil
}

type signOptions struct {
	streams
	key      string
	generate string
	comment  string
	output   string
}

func newSignCommand(s streams) *cobra.Command {
	o := &signOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "sign MODULE --key FILE | sign --generate FILE",
		Short: "Vouch for a module with a minisign key",
		Long: `Vouch for a module: write its signature beside it, as MODULE.minisig, in the form of
minisign. Workers whose policy names the public key under Keys load it then.

--generate makes a new pair of keys: FILE, which is secret, and FILE.pub. A password for
the secret key is asked for, or taken from BEACON_KEY_PASSWORD; an empty one leaves the
key in clear text. Keys of minisign itself do as well.`,
		Example: `  beacon sign --generate team.key
  beacon sign resize.wasm --key team.key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.generate != "" && (len(args) > 0 || o.key != ""):
				return usagef("--generate makes keys and signs nothing: leave MODULE and --key out")
			case o.generate != "":
				return o.newKeys()
			case len(args) != 1:
				return usagef("sign takes one module")
			case o.key == "":
				return usagef("--key is missing: name a secret key; --generate FILE makes one")
			}
			return o.sign(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.key, "key", "k", "", "file with the secret key")
	f.StringVar(&o.generate, "generate", "", "make a new pair of keys")
	f.StringVarP(&o.comment, "comment", "c", "", "what the signature says besides (default: file name and time)")
	f.StringVarP(&o.output, "output", "o", "", "where the signature goes (default MODULE.minisig)")
	return cmd
}

// password asks for one. twice is for a new one.
func (o *signOptions) password(twice bool) (string, error) {
	if text, ok := os.LookupEnv("BEACON_KEY_PASSWORD"); ok {
		return text, nil
	}
	in, ok := o.in.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) { //nolint:gosec // a descriptor
		return "", usagef("the key's password is needed: set BEACON_KEY_PASSWORD, or call this from a terminal")
	}
	ask := func(what string) (string, error) {
		fmt.Fprint(o.err, what+": ")
		text, err := term.ReadPassword(int(in.Fd())) //nolint:gosec // a descriptor
		fmt.Fprintln(o.err)
		return string(text), err
	}
	text, err := ask("password")
	if err != nil || !twice {
		return text, err
	}
	again, err := ask("once more")
	if err == nil && again != text {
		err = usagef("the passwords are not the same")
	}
	return text, err
}

func (o *signOptions) newKeys() error {
	password, err := o.password(true)
	if err != nil {
		return err
	}
	private, public, err := origin.GenerateKey(password)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content []byte
		mode    fs.FileMode
	}{{o.generate, private, 0o600}, {o.generate + ".pub", public, 0o644}} {
		// A key that is there already may be the only one of its kind.
		file, err := os.OpenFile(f.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.mode)
		if errors.Is(err, fs.ErrExist) {
			return usagef("%s is there already: keys are not written over", f.name)
		}
		if err == nil {
			_, err = file.Write(append(f.content, '\n'))
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			return usagef("%s: %w", f.name, unwrapPath(err))
		}
	}
	lines := strings.Split(strings.TrimSpace(string(public)), "\n")
	fmt.Fprintf(o.out, "beacon: the secret key is in %s; the public one, for the policy's Keys, is\n%s\n", o.generate, lines[len(lines)-1])
	return nil
}

func (o *signOptions) sign(ctx context.Context, path string) error {
	file, err := moduleFile(ctx, path)
	if err != nil {
		return err
	}
	binary, err := readModule(file)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(o.key)
	if err != nil {
		return usagef("--key %s: %w", o.key, unwrapPath(err))
	}
	password := ""
	if origin.IsEncrypted(key) {
		if password, err = o.password(false); err != nil {
			return err
		}
	}
	comment := cmp.Or(o.comment, "file:"+filepath.Base(file)+"\ttimestamp:"+fmt.Sprint(time.Now().Unix()))
	signature, err := origin.Sign(binary, key, password, comment)
	if err != nil {
		return fmt.Errorf("sign with --key %s: %w", o.key, err)
	}
	to := cmp.Or(o.output, file+origin.SignatureExtension)
	if err := os.WriteFile(to, signature, 0o644); err != nil { //nolint:gosec // a signature is for everybody
		return usagef("%s: %w", to, unwrapPath(err))
	}
	fmt.Fprintf(o.out, "beacon: signed; the signature is in %s\n", to)
	return nil
}

type verifyOptions struct {
	streams
	flags moduleFlags
	keys  []string
	pin   string
}

func newVerifyCommand(s streams) *cobra.Command {
	o := &verifyOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "verify MODULE",
		Short: "Check who vouches for a module, without loading it",
		Long: `Check the signature of a module, which lies beside it as MODULE.minisig or comes with it
from a registry, by the keys of --key or of the policy. The module is not looked into.`,
		Example: `  beacon verify resize.wasm --key team.key.pub
  beacon verify oci://registry.example.com/team/resize:1.0 --key RWQ…`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("verify takes one module")
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&o.keys, "key", "k", nil, "public key that is trusted, or a file with it; may be repeated")
	f.StringVar(&o.pin, "sha256", "", "the digest that it must have")
	f.StringVar(&o.flags.policy, "policy", "", "file with the operator's policy, for its Keys")
	return cmd
}

func (o *verifyOptions) run(ctx context.Context, source string) error {
	rules, err := readPolicy(o.flags.policy, config{})
	if err != nil {
		return err
	}
	keys := rules.Keys
	for _, k := range o.keys {
		if raw, err := os.ReadFile(k); err == nil { //nolint:gosec // the user names it
			k = string(raw)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return usagef("there is no key to check with: give --key, or a policy with Keys")
	}
	f, err := origin.New(origin.Config{Signatures: policy.Always, Keys: keys, MaxSize: maxModule, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return usage(err)
	}
	m, err := f.Fetch(ctx, source, o.pin)
	if errors.Is(err, fs.ErrNotExist) {
		return usage(err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "sha256     %s\nsigned by  key %s\ncomment    %s\n", m.Digest, m.SignedBy, m.Comment)
	return nil
}

type pushOptions struct {
	streams
	signature string
}

func newPushCommand(s streams) *cobra.Command {
	o := &pushOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "push MODULE oci://REGISTRY/NAME:TAG",
		Short: "Store a module in an OCI registry",
		Long: `Store a module in an OCI registry, in the layout that the CNCF has for WebAssembly, with
its signature if MODULE.minisig is there. Who you are is taken from Docker's configuration
(docker login).`,
		Example: `  beacon push resize.wasm oci://registry.example.com/team/resize:1.0`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 || !strings.HasPrefix(args[1], "oci://") {
				return usagef("push takes a module and where to put it: oci://REGISTRY/NAME:TAG")
			}
			return o.run(cmd.Context(), args[0], args[1])
		},
	}
	cmd.Flags().StringVar(&o.signature, "signature", "", "file with the signature (default MODULE.minisig, if there is one)")
	return cmd
}

func (o *pushOptions) run(ctx context.Context, path, to string) error {
	file, err := moduleFile(ctx, path)
	if err != nil {
		return err
	}
	binary, err := readModule(file)
	if err != nil {
		return err
	}
	signature, err := os.ReadFile(cmp.Or(o.signature, file+origin.SignatureExtension))
	if err != nil && (o.signature != "" || !errors.Is(err, fs.ErrNotExist)) {
		return usagef("--signature %s: %w", cmp.Or(o.signature, file+origin.SignatureExtension), unwrapPath(err))
	}
	digest, err := origin.Push(ctx, to, binary, signature, map[string]string{
		"org.opencontainers.image.title": filepath.Base(file),
	})
	if err != nil {
		return err
	}
	signed := "not signed"
	if signature != nil {
		signed = "signed"
	}
	fmt.Fprintf(o.out, "beacon: pushed, %s; it stays the same as %s@%s\n", signed, strings.TrimSuffix(to, tagOf(to)), digest)
	return nil
}

// tagOf is the tag of a reference with its colon, "" if there is none.
func tagOf(reference string) string {
	slash, colon := strings.LastIndexByte(reference, '/'), strings.LastIndexByte(reference, ':')
	if colon < slash {
		return ""
	}
	return reference[colon:]
}

type pullOptions struct {
	streams
	output string
	pin    string
}

func newPullCommand(s streams) *cobra.Command {
	o := &pullOptions{streams: s}
	cmd := &cobra.Command{
		Use:     "pull oci://REGISTRY/NAME:TAG",
		Short:   "Bring a module from an OCI registry",
		Long:    `Bring a module from an OCI registry into a file. What comes is checked against its digest.`,
		Example: `  beacon pull oci://registry.example.com/team/resize:1.0 -o resize.wasm`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !origin.IsRemote(args[0]) {
				return usagef("pull takes one reference, such as oci://registry.example.com/team/resize:1.0, or a URL")
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "where the module goes (default its name, in this folder)")
	cmd.Flags().StringVar(&o.pin, "sha256", "", "the digest that it must have")
	return cmd
}

func (o *pullOptions) run(ctx context.Context, source string) error {
	f, err := origin.New(origin.Config{MaxSize: maxModule, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	m, err := f.Fetch(ctx, source, o.pin)
	if err != nil {
		return err
	}
	to := cmp.Or(o.output, m.Name+".wasm")
	if err := os.WriteFile(to, m.Binary, 0o644); err != nil { //nolint:gosec // a module is for everybody
		return usagef("%s: %w", to, unwrapPath(err))
	}
	fmt.Fprintf(o.out, "beacon: %s, %d bytes, sha256 %s\n", to, len(m.Binary), m.Digest)
	return nil
}
