package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	wasmrt "github.com/ultravisor/beacon/runtime"
)

func TestConfig(t *testing.T) {
	t.Setenv("TEST_SECRET", "from the environment")
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("from a file\n"), 0o600))
	tests := map[string]struct {
		text  string
		want  func(config) any
		value any
		fails string
	}{
		"of the Node worker": {
			text: `{"ServerURL": "http://a", "Name": "n", "MaxConcurrent": 3, "Tags": {"gpu": true}, "PollIntervalMs": 100}`,
			want: func(c config) any {
				return []any{c.ServerURL, c.Name, c.MaxConcurrent, c.Tags["gpu"], c.PollIntervalMs}
			},
			value: []any{"http://a", "n", 3, true, int64(100)},
		},
		"providers": {
			text: `{"Providers": [{"Source": "a.wasm", "Config": {"Key": 1}, "Memory": "64M"}]}`,
			want: func(c config) any {
				return []any{c.Providers[0].Source, c.Providers[0].Config.Text("Key"), c.Providers[0].Memory}
			},
			value: []any{"a.wasm", "1", "64M"},
		},
		"shared mounts": {
			text:  `{"SharedMounts": [{"Root": "/a"}, {"MountID": "m", "Root": "/b"}, "/c"]}`,
			want:  func(c config) any { return c.SharedMounts },
			value: []sharedMount{{Root: "/a"}, {Root: "/b", MountID: "m"}, {Root: "/c"}},
		},
		"a shared mount that is none": {text: `{"SharedMounts": [7]}`, fails: `SharedMounts: want {"Root": "/path"}`},
		"a misspelt shared mount":     {text: `{"SharedMounts": [{"Path": "/a"}]}`, fails: "Path"},
		"secret from the environment": {text: `{"Password": "$TEST_SECRET"}`, want: func(c config) any { return c.Password }, value: "from the environment"},
		"secret from a file":          {text: `{"JoinSecret": "file:` + filepath.ToSlash(file) + `"}`, want: func(c config) any { return c.JoinSecret }, value: "from a file"},
		"secret that is not there":    {text: `{"Password": "$TEST_ABSENT"}`, fails: "Password: the environment has no TEST_ABSENT"},
		"unknown key":                 {text: `{"ServerUrl": "x"}`, fails: `unknown key "ServerUrl"; the nearest known one is "ServerURL"`},
		"misspelt":                    {text: `{"MaxConcurent": 1}`, fails: `"MaxConcurrent"`},
		"unknown key of a provider":   {text: `{"Providers": [{"Source": "a", "Confg": 1}]}`, fails: `unknown key "Confg" in Providers[0]; the nearest known one is "Config"`},
		"wrong type in a provider":    {text: `{"Providers": [{"Source": "a", "Memory": 64}]}`, fails: "Providers[0].Memory is a number: want text in quotes"},
		"provider without source":     {text: `{"Providers": [{}]}`, fails: "entry 0 has no Source"},
		"capabilities":                {text: `{"Capabilities": ["Shell"]}`, want: func(c config) any { return c.Capabilities }, value: []string{"Shell"}},
		"not a key":                   {text: `{"found": true}`, fails: `unknown key "found"`},
		"wrong type":                  {text: `{"MaxConcurrent": "many"}`, fails: "MaxConcurrent is text in quotes: want a number"},
		"negative":                    {text: `{"PollIntervalMs": -1}`, fails: "below zero"},
		"not an object":               {text: `[]`, fails: "not a JSON object"},
		"not JSON":                    {text: `{`, fails: "not a JSON object: line 1: "},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.json")
			require.NoError(t, os.WriteFile(path, []byte(tt.text), 0o600))
			c, err := readConfig(path)
			if tt.fails != "" {
				require.ErrorContains(t, err, tt.fails)
				require.Equal(t, exitUsage, exitCode(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.value, tt.want(c))
		})
	}
	_, err := readConfig(filepath.Join(t.TempDir(), "absent"))
	require.ErrorContains(t, err, "no such file")
	t.Chdir(t.TempDir())
	_, err = readConfig("")
	require.NoError(t, err, "the usual file may be missing")
}

// A flag counts before the environment, that before the file, and that before
// the default.
func TestPrecedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"Name": "file", "ServerURL": "http://file", "Providers": [{"Source": "a.wasm"}, {"Source": "b.wasm", "Memory": "1M"}]}`), 0o600))
	resolved := func(args ...string) *runOptions {
		o := &runOptions{}
		f := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.StringVar(&o.name, "name", "beacon-worker", "")
		f.StringVar(&o.server, "server", "", "")
		f.StringArrayVar(&o.modules, "module", nil, "")
		f.StringVar(&o.configPath, "config", "", "")
		o.tls.register(f)
		o.moduleFlags.register(f)
		require.NoError(t, f.Parse(args))
		require.NoError(t, o.configure(f))
		return o
	}
	require.Equal(t, "beacon-worker", resolved().name)
	o := resolved("--config", path)
	require.Equal(t, "file", o.name)
	require.Len(t, o.file.Providers, 2)
	require.Equal(t, byteSize(1<<20), o.file.Providers[1].memory)
	o = resolved("--config", path, "--module", "c.wasm", "--memory", "2M")
	require.Len(t, o.file.Providers, 1)
	require.Equal(t, byteSize(2<<20), o.file.Providers[0].memory)
	t.Setenv("BEACON_NAME", "environment")
	require.Equal(t, "environment", resolved("--config", path).name)
	require.Equal(t, "flag", resolved("--config", path, "--name", "flag").name)
}

// How many instances there are, and what all of them may have, is in the file.
func TestInstancesInTheFile(t *testing.T) {
	write := func(t *testing.T, content string) string {
		path := filepath.Join(t.TempDir(), "c.json")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	resolve := func(args ...string) (*runOptions, error) {
		o := &runOptions{}
		f := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.StringVar(&o.configPath, "config", "", "")
		o.tls.register(f)
		o.moduleFlags.register(f)
		require.NoError(t, f.Parse(args))
		return o, o.configure(f)
	}
	path := write(t, `{"GuestMemory": "2G", "Providers": [{
		"Source": "a.wasm", "Instances": {"Ready": 3, "Most": 8, "Idle": "5m", "Fresh": true}, "WarmUp": {"Action": "Do", "Settings": {"a": 1}}
	}]}`)
	o, err := resolve("--config", path)
	require.NoError(t, err)
	require.Equal(t, byteSize(2<<30), o.moduleFlags.all)
	p := o.file.Providers[0]
	pool, err := p.Instances.pool()
	require.NoError(t, err)
	require.Equal(t, wasmrt.Pool{Ready: 3, Most: 8, Idle: 5 * time.Minute, Fresh: true}, pool)
	require.Equal(t, "Do", p.WarmUp.Action)
	o, err = resolve("--config", path, "--guest-memory", "1G")
	require.NoError(t, err)
	require.Equal(t, byteSize(1<<30), o.moduleFlags.all)

	for content, want := range map[string]string{
		`{"Providers": [{"Source": "a.wasm", "Instances": {"Idle": "5"}}]}`: `provider a.wasm: Instances.Idle is "5": want a duration, such as 90s or 5m`,
		`{"Providers": [{"Source": "a.wasm", "Instances": {"Most": -1}}]}`:  "provider a.wasm: Instances.Most is -1",
		`{"Providers": [{"Source": "a.wasm", "Instances": {"Mots": 1}}]}`:   "Mots",
		`{"GuestMemory": "much"}`: "GuestMemory",
	} {
		_, err := resolve("--config", write(t, content))
		require.ErrorContains(t, err, want)
	}
}

// All that the Node worker reads from its file, of both its versions.
func TestConfigOfTheNodeWorker(t *testing.T) {
	path := filepath.Join(t.TempDir(), configName)
	require.NoError(t, os.WriteFile(path, []byte(`{
		"ServerURL": "http://orchestrator:54321", "Name": "media-worker-1", "UserName": "media", "Password": "p", "JoinSecret": "j",
		"Capabilities": ["Shell", "FileSystem"],
		"Providers": [{"Source": "Shell"}, {"Source": "FileSystem", "Config": {"AllowedPaths": ["/data"], "MaxFileSizeBytes": 104857600}}],
		"MaxConcurrent": 4, "PollIntervalMs": 5000, "HeartbeatIntervalMs": 30000, "ReconnectIntervalMs": 10000,
		"StagingPath": "/data/staging", "Tags": {"gpu": true}, "HostID": "host-1", "ForceHTTPTransport": true,
		"Contexts": {"File": {"BasePath": "/data", "BaseURL": "http://10.0.0.5:7827/content/", "Writable": true, "Description": "files"}},
		"Operations": [{"Hash": "op", "Name": "Op", "Graph": {"Nodes": [], "Connections": []}}],
		"BindAddresses": [{"IP": "192.168.1.50", "Port": 7827, "Protocol": "http"}],
		"SharedMounts": [{"Root": "/media"}]
	}`), 0o600))
	t.Chdir(filepath.Dir(path))
	o := &runOptions{}
	cmd := newRunCommandOf(o)
	require.NoError(t, cmd.ParseFlags([]string{"--poll-interval", "250", "--staging-path", "here", "--user", "u", "--password", "q", "--max-concurrent", "2"}))
	require.NoError(t, o.configure(cmd.Flags()))
	require.Equal(t, []any{"http://orchestrator:54321", "media-worker-1", "u", "q", "j", 2, "here", interval(250 * time.Millisecond), "http"},
		[]any{o.server, o.name, o.user, o.password, o.joinSecret, o.maxConcurrent, o.staging, o.pollInterval, o.transport})
	require.Len(t, o.file.Providers, 2)
	require.Equal(t, "host-1", o.file.HostID)
	require.Len(t, o.file.Contexts, 1)
	require.Len(t, o.file.Operations, 1)
	require.Len(t, o.file.BindAddresses, 1)
	require.EqualValues(t, 10000, o.file.ReconnectIntervalMs)
	require.EqualValues(t, 30000, o.file.HeartbeatIntervalMs)

	// The Node worker ignores --capabilities when the file has Providers.
	chosen := &runOptions{}
	cmd = newRunCommandOf(chosen)
	require.NoError(t, cmd.ParseFlags([]string{"--capabilities", "FileSystem"}))
	require.NoError(t, chosen.configure(cmd.Flags()))
	require.Len(t, chosen.file.Providers, 1)
	require.Equal(t, "FileSystem", chosen.file.Providers[0].Source)

	for _, wrong := range []string{"0", "-5", "often", "99999999999999"} {
		require.ErrorContains(t, newRunCommandOf(&runOptions{}).ParseFlags([]string{"--poll-interval", wrong}), "want a time above zero")
	}
	t.Setenv("TEST_SECRET", "hidden")
	cmd = newRunCommandOf(o)
	require.NoError(t, cmd.ParseFlags([]string{"--password", "$TEST_SECRET", "--join-secret", "$TEST_ABSENT"}))
	require.ErrorContains(t, o.configure(cmd.Flags()), "--join-secret: the environment has no TEST_ABSENT")
	require.Equal(t, "hidden", o.password)
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"ServerURL": "x", "Providers": [{"Source": "a"}]}`))
	f.Add([]byte(`{"Tags": {"a": [1, {}]}, "MaxConcurrent": 1e3}`))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var c config
		_ = decodeConfig(raw, &c) // must not panic
	})
}
