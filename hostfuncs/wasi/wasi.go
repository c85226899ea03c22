// Package wasi is WASI preview 1 for guests that are not trusted: the functions
// of wasi_snapshot_preview1 on a Process, which is the state of one work item.
//
// All 46 functions are there, so that every module links. What is not offered
// answers with an error number and has no effect:
//
//	path_link, path_symlink   EPERM, as of a file system without links
//	path_readlink             EINVAL, as of something that is not a link
//	fd_fdstat_set_rights      ENOTSUP
//	proc_raise                ENOSYS
//	sock_*                    ENOTSOCK, or EBADF
//
// A path is resolved below its directory without following anything; one that
// would leave the directory, or is absolute, answers EPERM. Rights are reported,
// and derived from how a file was opened; FD_READ and FD_WRITE count, others are
// not checked. The flags DSYNC, RSYNC and SYNC are accepted and have no effect:
// a work item's files do not outlive it.
//
// No call outlives the context that the guest was called with, as long as the
// Config's readers and writers do not block.
package wasi

import (
	"context"
	"time"

	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// Name is the name of the import module.
const Name = "wasi_snapshot_preview1"

// Limits of the arguments of one call.
const (
	maxPath          = 4096
	maxVectors       = 1024
	maxDescriptors   = 1024 // numbers are below it
	maxSubscriptions = 64
	maxBuffer        = 1 << 20 // of fd_readdir, and of one piece of random_get
	maxArguments     = 1 << 20 // bytes of arguments, and of the environment
)

type function = abi.Function[*Process]

// Interface returns the functions. Monotonic clocks of all guests have the same
// base: the real time at which Interface was called.
func Interface() abi.Interface[*Process] {
	clock := hostClock{start: time.Now()}
	// One more byte than allowed shows that a path is too long.
	path := abi.Prefix(maxPath + 1)
	vectors := abi.Vectors(maxVectors)
	i32, i64, u32, u64 := abi.I32, abi.I64, abi.Cell(4), abi.Cell(8)
	params := func(p ...abi.Param) []abi.Param { return p }
	return abi.Interface[*Process]{
		Name:  Name,
		Fault: eFault,
		Long:  eInvalid,
		Enter: func(_ *Process, ctx context.Context) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return nil
		},
		Functions: []function{
			{Name: "args_get", Params: params(abi.Pointer, abi.Pointer), Func: argsGet},
			{Name: "args_sizes_get", Params: params(u32, u32), Func: argsSizesGet},
			{Name: "environ_get", Params: params(abi.Pointer, abi.Pointer), Func: environGet},
			{Name: "environ_sizes_get", Params: params(u32, u32), Func: environSizesGet},

			{Name: "clock_res_get", Params: params(i32, u64), Func: clockResGet},
			{Name: "clock_time_get", Params: params(i32, i64, u64), Func: clock.timeGet},
			{Name: "poll_oneoff", Params: params(abi.Pointer, abi.Pointer, i32, u32), Waits: true, Func: clock.pollOneoff},
			{Name: "sched_yield", Func: schedYield},
			{Name: "random_get", Params: params(abi.Pointer, i32), Func: randomGet},
			{Name: "proc_exit", Params: params(i32), NoResult: true, Func: procExit},
			{Name: "proc_raise", Params: params(i32), Func: notImplemented},

			{Name: "fd_advise", Params: params(i32, i64, i64, i32), Func: fdAdvise},
			{Name: "fd_allocate", Params: params(i32, i64, i64), Func: fdAllocate},
			{Name: "fd_close", Params: params(i32), Func: fdClose},
			{Name: "fd_datasync", Params: params(i32), Func: fdSync},
			{Name: "fd_fdstat_get", Params: params(i32, abi.Cell(24)), Func: fdFdstatGet},
			{Name: "fd_fdstat_set_flags", Params: params(i32, i32), Func: fdFdstatSetFlags},
			{Name: "fd_fdstat_set_rights", Params: params(i32, i64, i64), Func: fdFdstatSetRights},
			{Name: "fd_filestat_get", Params: params(i32, abi.Cell(64)), Func: fdFilestatGet},
			{Name: "fd_filestat_set_size", Params: params(i32, i64), Func: fdFilestatSetSize},
			{Name: "fd_filestat_set_times", Params: params(i32, i64, i64, i32), Func: fdFilestatSetTimes},
			{Name: "fd_pread", Params: params(i32, vectors, i64, u32), Func: fdPread},
			{Name: "fd_prestat_get", Params: params(i32, abi.Cell(8)), Func: fdPrestatGet},
			{Name: "fd_prestat_dir_name", Params: params(i32, abi.Out(maxPath)), Func: fdPrestatDirName},
			{Name: "fd_pwrite", Params: params(i32, vectors, i64, u32), Func: fdPwrite},
			{Name: "fd_read", Params: params(i32, vectors, u32), Func: fdRead},
			{Name: "fd_readdir", Params: params(i32, abi.Pointer, i32, i64, u32), Func: fdReaddir},
			{Name: "fd_renumber", Params: params(i32, i32), Func: fdRenumber},
			{Name: "fd_seek", Params: params(i32, i64, i32, u64), Func: fdSeek},
			{Name: "fd_sync", Params: params(i32), Func: fdSync},
			{Name: "fd_tell", Params: params(i32, u64), Func: fdTell},
			{Name: "fd_write", Params: params(i32, vectors, u32), Func: fdWrite},

			{Name: "path_create_directory", Params: params(i32, path), Func: pathCreateDirectory},
			{Name: "path_filestat_get", Params: params(i32, i32, path, abi.Cell(64)), Func: pathFilestatGet},
			{Name: "path_filestat_set_times", Params: params(i32, i32, path, i64, i64, i32), Func: pathFilestatSetTimes},
			{Name: "path_link", Params: params(i32, i32, path, i32, path), Func: pathLink},
			{Name: "path_open", Params: params(i32, i32, path, i32, i64, i64, i32, u32), Func: pathOpen},
			{Name: "path_readlink", Params: params(i32, path, abi.Out(maxPath), u32), Func: pathReadlink},
			{Name: "path_remove_directory", Params: params(i32, path), Func: pathRemoveDirectory},
			{Name: "path_rename", Params: params(i32, path, i32, path), Func: pathRename},
			{Name: "path_symlink", Params: params(path, i32, path), Func: pathSymlink},
			{Name: "path_unlink_file", Params: params(i32, path), Func: pathUnlinkFile},

			{Name: "sock_accept", Params: params(i32, i32, i32), Func: notSocket},
			{Name: "sock_recv", Params: params(i32, i32, i32, i32, i32, i32), Func: notSocket},
			{Name: "sock_send", Params: params(i32, i32, i32, i32, i32), Func: notSocket},
			{Name: "sock_shutdown", Params: params(i32, i32), Func: notSocket},
		},
	}
}
