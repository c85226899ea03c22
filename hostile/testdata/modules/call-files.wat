;; ok
;; Calls that read and write what is not the caller's.
;; grants api
(func $main
  (call $must (call $invoke (str "{\22Capability\22:\22honest\22,\22Source\22:\22input.txt\22}")))
  (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22,\22Source\22:\22../canary\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22,\22Source\22:\22/etc/passwd\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22,\22Source\22:\22.\22}")))
  (call $refuse (call $invoke (str "{\22Capability\22:\22writer\22,\22Output\22:\22../evil\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22writer\22,\22Output\22:\22../../evil\22}")))
  (call $refuse (call $invoke (str "{\22Capability\22:\22writer\22,\22Output\22:\22input.txt\22}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22,\22Settings\22:{\22SourceURL\22:\22file:///etc/passwd\22}}")))
  (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22,\22Settings\22:{\22OutputFilename\22:\22../evil\22}}"))) (call $refuse (call $invoke (str "{\22Capability\22:\22honest\22,\22Settings\22:{\22AffinityKey\22:\22x\22}}"))))
