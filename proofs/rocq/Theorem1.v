(** * Theorem 1

    "For any conventional third generation computer, a virtual machine monitor may be constructed if the
    set of sensitive instructions for that computer is a subset of the set of privileged instructions."

    First for any machine and technique, from the premises; then that the premise A1 is the weakest; then
    for the paper's machine and map, from the classes. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.ThirdGeneration Popek.Classes Popek.Map.
Require Import Popek.Premises Popek.Monitor Popek.Runs.
Import ListNotations.

(** ** From the premises *)

Definition all_direct {m} (v : technique m) : notes v -> bool := fun _ => true.

(** What a virtual machine monitor owes, for guests that are run directly where [direct] says so:
    - equivalence: the guest's n-th state is reached in n to 2n steps; and at every time the host is in
      the image of a state of the guest's run, or at the dispatcher's entry from it, with n growing with
      the time, so that a run that never ends never gets stuck;
    - resource control, at every time: the hardware is deprivileged, what the control program owns is as
      it was loaded, and traps go to the control program; or the control program has control;
    - efficiency: an instruction that completes and has no needless traps takes one hardware step. *)
Record monitored (m : machine) (v : technique m) (direct : notes v -> bool) : Prop := {
  reached : forall S p n, (forall j, j < n -> ok v (run m j S) p) ->
    exists h, n <= h <= 2 * n /\
      host_run m v direct p h (resume m v direct p S) = resume m v direct p (run m n S);
  agreed : forall S p h, (forall j, j < h -> ok v (run m j S) p) -> agrees m v direct p S h;
  in_control : forall S p h, (forall j, j <= h -> ok v (run m j S) p) ->
    exists n, n <= h /\
      controlled m v p (run m n S) (host_run m v direct p h (resume m v direct p S));
  direct_runs : forall S p i S', ok v S p -> direct (note v S) = true ->
    A8_fetch m v -> A8_efficiency m v i -> fetch m S = inr i -> perform m i S = Next S' ->
    takes m v direct p S = 1
}.

Lemma monitored_from_premises m v direct :
  A0_image m v -> fidelity m v direct -> A2_fetch m v -> A4_entry_tells m v -> A5_vector m v ->
  monitored m v direct.
Proof.
  intros A0 A1 A2 A4 A5. split.
  - intros S p n O. exists (hardware_steps m v direct p n S).
    split; [apply hardware_steps_bounds |].
    apply reaches; [now apply fidelity_commutes | exact A4 | exact O].
  - intros S p h O. apply always_agrees; [now apply fidelity_commutes | exact A4 | exact O].
  - intros S p h O. apply resources_controlled; auto. now apply fidelity_commutes.
  - intros S p i S' O D F8 A8 F X. now apply (runs_directly m v direct p S i S').
Qed.

(** Theorem 1, while the guest stays ok: all that is needed are A0, A1, A2, A4 and A5. *)
Theorem theorem_1_from_premises m v :
  A0_image m v -> A1_fidelity m v -> A2_fetch m v -> A4_entry_tells m v -> A5_vector m v ->
  monitored m v (all_direct v).
Proof. intros A0 A1. now apply monitored_from_premises. Qed.

(** With closure, "while the guest stays ok" is "if it starts ok". *)
Theorem theorem_1_closed m v :
  A0_image m v -> A1_fidelity m v -> A2_fetch m v -> A3_closure m v -> A4_entry_tells m v -> A5_vector m v ->
  forall S p, ok v S p ->
    (forall n, exists h, n <= h <= 2 * n /\
       host_run m v (all_direct v) p h (Running (image v S p), note v S) =
       (Running (image v (run m n S) p), note v (run m n S))) /\
    (forall h, agrees m v (all_direct v) p S h).
Proof.
  intros A0 A1 A2 A3 A4 A5 S p O.
  destruct (theorem_1_from_premises m v A0 A1 A2 A4 A5) as [Reached Agreed _ _].
  split; intros; [apply Reached | apply Agreed]; intros; now apply closed_run.
Qed.

(** No leak: what an instruction does to the guest does not depend on what the control program has,
    another guest included.  A consequence of A1. *)
Corollary no_leak m v :
  A1_fidelity m v -> forall i S p q T U, ok v S p -> ok v S q ->
    perform m i (image v S p) = Next T -> perform m i (image v S q) = Next U ->
    exists S', T = image v S' p /\ U = image v S' q.
Proof.
  intros A1 i S p q T U O O' X Y.
  destruct (A1 i S p T O eq_refl X) as (S1 & X1 & -> & _).
  destruct (A1 i S q U O' eq_refl Y) as (S2 & X2 & -> & _).
  exists S1. split; congruence.
Qed.

(** ** A1 is exact

    The runs agree at every time if and only if what the hardware completes commutes with f.  So for
    this map nothing weaker will do. *)
Theorem theorem_1_exact m v direct :
  A3_closure m v -> A4_entry_tells m v ->
  forall p, step_commutes m v direct p <-> (forall S, ok v S p -> forall h, agrees m v direct p S h).
Proof.
  intros A3 A4 p. split.
  - intros C S O h. apply always_agrees; auto. intros. now apply closed_run.
  - apply commutes_if_agrees.
Qed.

(** A1 says a little more: that the guest's own machine completes there, too.  The difference is an
    instruction that completes on the hardware in exactly what the guest's trap would make of the guest;
    where there is none, agreement is A1 for every instruction as it is fetched. *)
Definition imitates_trap m (v : technique m) : Prop :=
  exists S p T c U, ok v S p /\ completes m (image v S p) T /\ stops m S c U /\
    T = image v (deliver m c U) p /\ note v (deliver m c U) = note v S.

Theorem A1_weakest m v direct :
  ~ imitates_trap m v -> A3_closure m v ->
  (forall S p, ok v S p -> forall h, agrees m v direct p S h) ->
  forall S p T, ok v S p -> direct (note v S) = true -> completes m (image v S p) T ->
    exists S', completes m S S' /\ T = image v S' p /\ note v S' = note v S.
Proof.
  intros NoImitation A3 Agree S p T O D C.
  destruct (commutes_if_agrees m v direct p (fun S O => Agree S p O) S T O D C) as [Eq N].
  destruct (completes_or_stops m S) as [(S' & C') | (c & U & C')].
  - exists S'. rewrite <- (step_completes _ _ _ C'). auto.
    now rewrite (step_completes _ _ _ C') at 1.
  - exfalso. apply NoImitation. exists S, p, T, c, U.
    rewrite (step_stops _ _ _ _ C') in Eq, N. auto.
Qed.

(** ** A4 without terms for the recovering

    Where no function U is at hand that reads the guest off the hardware, it is enough that no two guests
    look the same at an entry.  The control program then goes on with *a* guest that could have led there;
    the host never gets stuck, and always is where it should be, with the same bounds. *)
Record monitored_told_apart (m : machine) (v : technique m) (direct : notes v -> bool) : Prop := {
  told_agreed : forall S p h x, may_run m v direct p (resume m v direct p S) h x ->
    (forall j, j <= h -> ok v (run m j S) p) ->
    exists n, (x = resume m v direct p (run m n S) /\ n <= h <= 2 * n) \/
              (at_entry_from m v direct p (run m n S) x /\ n <= h <= 2 * n + 1);
  told_goes_on : forall S p h x, may_run m v direct p (resume m v direct p S) h x ->
    (forall j, j <= h -> ok v (run m j S) p) -> exists y, may_step m v direct p x y;
  told_in_control : forall S p h x, may_run m v direct p (resume m v direct p S) h x ->
    (forall j, j <= h -> ok v (run m j S) p) -> controlled_by_notes m v p x;
  told_direct_runs : forall S p i S', ok v S p -> direct (note v S) = true ->
    A8_fetch m v -> A8_efficiency m v i -> fetch m S = inr i -> perform m i S = Next S' ->
    takes m v direct p S = 1
}.

Lemma told_apart_from_premises m v direct :
  A0_image m v -> fidelity m v direct -> A2_fetch m v -> A4_entry_tells_apart m v ->
  A5_control m v -> A5_vector m v -> monitored_told_apart m v direct.
Proof.
  intros A0 A1 A2 A4 A5 A5v.
  pose proof (fun p S => told_apart_agrees m v direct p S (fidelity_commutes _ _ _ _ A2 A1) (A4_direct _ _ _ _ A4)) as Told.
  split.
  - intros S p h x Path O. destruct (Told p S h x Path O) as (n & Where & _). exists n.
    pose proof (hardware_steps_bounds m v direct p n S).
    destruct Where as [[-> ->] | (At & -> & _)]; [left; now split | right; split; [exact At | lia]].
  - intros S p h x Path O. destruct (Told p S h x Path O) as (n & _ & Goes). exact Goes.
  - intros S p h x Path O. destruct (Told p S h x Path O) as (n & Where & _).
    pose proof (hardware_steps_bounds m v direct p n S).
    destruct Where as [[-> Eq] | ((_ & c & T & _ & ->) & _)]; [| exact I].
    assert (ok v (run m n S) p) as On by (apply O; lia).
    unfold resume. destruct (direct (note v (run m n S))); [| exact I]. cbn.
    repeat split; [now apply A0 | now apply A5v |]. intros G OG N. now apply A5.
  - intros S p i S' O D F8 A8 F X. now apply (runs_directly m v direct p S i S').
Qed.

(** Theorem 1 from the premises as a machine is asked them: A4 with two guests, A5 in both parts. *)
Theorem theorem_1_told_apart m v :
  A0_image m v -> A1_fidelity m v -> A2_fetch m v -> A4_entry_tells_apart m v ->
  A5_control m v -> A5_vector m v -> monitored_told_apart m v (all_direct v).
Proof. intros A0 A1. now apply told_apart_from_premises. Qed.

(** ** The paper's machine and map *)

Section Classes.
  Variable t : third_generation.
  Notation state := (storage_state (word t)).
  Notation m := (machine_of t).

  Definition is_user (x : mode) : bool := match x with user => true | supervisor => false end.

  (** The map of [Map.v] as a technique.  The one condition: what a trap loads from E[1] puts the
      machine into supervisor mode. *)
  Definition paper : technique m := {|
    private := control (word t);
    notes := (mode * relocation)%type;
    image := f t : Machine.state m -> control (word t) -> Machine.state m;
    note := fun S => (M S, R S);
    ok := fun _ p => psw_M (to_psw t (entry p)) = supervisor;
    deprivileged := fun h => M h = user;
    owned_part := word t * list (word t) * list (word t);
    owned := fun p h => kept t p h;
    vector_part := word t;
    vector := fun h => nth 1 (E h) (blank t);
    entry_of := entry;
    enter := fun _ h => exchange t h;
    recover := fun _ p _ h => recover_guest t p h;
    virtual_user := fun n => is_user (fst n)
  |}.

  Lemma paper_A0 : A0_image m paper.
  Proof. now intros S p O. Qed.

  Lemma fetch_f S p : fetch m (f t S p : Machine.state m) = fetch m S.
  Proof.
    change (fetch m (f t S p)) with
      (match nth_error (view (R (f t S p)) (E (f t S p))) (P S) with
       | Some x => inr (decode t x) | None => inl memory_trap end : trap_cause + opcode t).
    now rewrite view_f.
  Qed.

  Lemma paper_A2 : A2_fetch m paper.
  Proof. intros S p i _. cbn [image paper]. now rewrite fetch_f. Qed.

  Lemma paper_A8_fetch : A8_fetch m paper.
  Proof. intros S p i _. cbn [image paper]. now rewrite fetch_f. Qed.

  Lemma paper_A3 : A3_closure m paper.
  Proof. now split; intros. Qed.

  Lemma stops_in (S : Machine.state m) c T : stops m S c T -> T = S.
  Proof.
    intros [[_ ->] | (i & _ & X)]; [easy |]. cbn in X.
    destruct (execute t i S); [discriminate | now inversion X].
  Qed.

  Lemma paper_A4 : A4_entry_tells m paper.
  Proof.
    intros S p c T _ X. apply stops_in in X. subst T. cbn [recover enter paper image].
    apply recover_after_trap.
  Qed.

  Lemma paper_A5 : A5_control m paper.
  Proof. intros S S' p _ _ _. cbn [owned paper image]. now rewrite !kept_f. Qed.

  Lemma paper_A5_vector : A5_vector m paper.
  Proof. now intros S p O. Qed.

  Lemma perform_next i (S T : state) : perform m i S = Next T <-> execute t i S = Completes T.
  Proof.
    cbn. destruct (execute t i S); split; intros H; inversion H; reflexivity.
  Qed.

  Lemma run_length n (S : Machine.state m) : length (E (run m n S)) = length (E S).
  Proof. induction n; [easy |]. cbn [run]. now rewrite step_length. Qed.

  Lemma neither_traps i (S : state) :
    execute t i S <> Traps memory_trap -> execute t i S <> Traps other_trap ->
    exists T, execute t i S = Completes T.
  Proof. intros A B. destruct (execute t i S) as [T | []]; [eauto | now elim A | now elim B]. Qed.

  (** Lemma 1 of the paper, for one instruction: what completes on f(S) and is not sensitive completes on
      S, and commutes with f. *)
  Lemma lemma_1 i S p h :
    references_relocated t -> traps_in_user_too t -> confined t -> ~ privileged t i -> innocuous t i ->
    execute t i (f t S p) = Completes h ->
    exists S', execute t i S = Completes S' /\ h = f t S' p /\ M S' = M S /\ R S' = R S.
  Proof.
    intros Refs Traps Conf NotPriv Inn X.
    assert (forall S', alike t (f t S p) S' -> exists T, execute t i S' = Completes T) as Comp.
    { intros S' A. apply neither_traps.
      - now apply (Refs i (f t S p) h S').
      - now apply (Traps i (f t S p) h S'). }
    assert (forall S', P S = P S' -> view (R S) (E S) = view (R S') (E S') -> alike t (f t S p) S') as Alike.
    { intros S' Hp Hv. split; [exact Hp | now rewrite view_f]. }
    destruct (Comp S) as (S1 & X1); [now apply Alike |].
    set (Su := St (E S) user (P S) (R S)).
    destruct (Comp Su) as (S2 & X2); [now apply Alike |].
    assert (~ control_sensitive t i) as NC by (intros H; apply Inn; now left).
    assert (~ location_sensitive t i) as NL by (intros H; apply Inn; right; now left).
    assert (~ mode_sensitive t i) as NM by (intros H; apply Inn; right; now right).
    destruct (keeps_control t i S S1 NC X1) as [MS RS].
    destruct (keeps_control t i _ h NC X) as [Mh Rh].
    (* the virtual machine and its user-mode twin *)
    assert (view (R S) (E S1) = view (R S) (E S2) /\ P S1 = P S2) as [V12 P12].
    { destruct (M S) eqn:Mode.
      - apply (not_differ t S S1 Su S2). intros D. apply NM. exists S, S1, S2. cbn zeta. now rewrite Mode.
      - assert (Su = S) as Same by (unfold Su; rewrite <- Mode; now destruct S).
        rewrite Same, X1 in X2. inversion X2. auto. }
    (* the twin and the real machine *)
    destruct (not_differ t Su S2 (f t S p) h) as [V2h P2h].
    { intros D. apply NL. exists Su, S2, (f t S p), h.
      split; [split; [reflexivity | exact (eq_sym (view_f t S p))] | now split]. }
    exists S1. split; [exact X1 |]. split; [| auto].
    assert (E h = low t S1 p ++ E S1 ++ behind p) as Eh.
    { apply (storage_of_step t S S1 h p); auto.
      - exact (keeps_size t i S S1 X1).
      - now apply (Conf i S S1).
      - now apply (Conf i (f t S p) h).
      - now rewrite V12. }
    unfold f at 1. rewrite (keeps_size t i S S1 X1), RS, P12, <- Eh. change (P S2) with (P S2).
    destruct h. cbn in *. now subst.
  Qed.

  (** The classes imply A1. *)
  Theorem classes_imply_A1 :
    (forall i, sensitive t i -> privileged t i) ->
    references_relocated t -> traps_in_user_too t -> confined t -> A1_fidelity m paper.
  Proof.
    intros Sub Refs Traps Conf i S p h O _ X. apply perform_next in X. cbn [image paper] in X.
    assert (~ privileged t i) as NotPriv by (intros [Never _]; now apply (Never (f t S p) h)).
    destruct (lemma_1 i S p h) as (S' & X' & -> & MS & RS); auto.
    - intros Sens. apply NotPriv, Sub, Sens.
    - exists S'. split; [now apply perform_next |]. split; [easy |]. cbn. now rewrite MS, RS.
  Qed.

  Lemma no_needless_traps_A8 i : no_needless_traps t i -> A8_efficiency m paper i.
  Proof.
    intros H S p S' _ X. apply perform_next in X.
    destruct (H S S' (f t S p) X) as (T & X'); [apply f_alike | reflexivity |].
    exists T. now apply perform_next.
  Qed.

  (** Resource control, said of the paper's machine: the control program's storage, location 1 and what
      lies behind the virtual machine are as they were; and the dispatcher has control, or the mode is
      user and every reference is into the virtual machine. *)
  Definition safe_at (p : control (word t)) (w : nat) (x : host m paper) : Prop :=
    match x with
    | (Running h, _) =>
        kept t p h = (entry p, rest p, behind p) /\ M h = user /\
        (forall a, a < b (R h) -> k p <= l (R h) + a < k p + w)
    | (Entered _ h, _) =>
        kept t p h = (entry p, rest p, behind p) /\ status h = to_psw t (entry p)
    | (Interpreting _, _) => True
    end.

  Lemma safe_if_agrees direct S p h :
    agrees m paper direct p S h ->
    safe_at p (length (E S)) (host_run m paper direct p h (resume m paper direct p S)).
  Proof.
    intros (n & [[-> _] | [(D & c & T & X & ->) _]]).
    - unfold resume. destruct (direct _); [| exact I]. cbn [safe_at image paper].
      split; [apply kept_f |]. split; [reflexivity |].
      intros a Ha. rewrite <- (run_length n S). now apply f_inside.
    - apply stops_in in X. subst T. cbn [safe_at enter paper image].
      split; [apply kept_exchange |]. unfold exchange, f, low, status. cbn [E M P R nth app].
      now destruct (to_psw t (entry p)).
  Qed.

  (** What Theorem 1 concludes: the five statements, for every guest S, every control program's part p
      and every time.  [on S p] is the host that runs S directly. *)
  Definition on S p : host m paper := (Running (m := m) (f t S p), (M S, R S)).

  Record virtual_machine_monitor : Prop := {
    one_one : forall S S' p, f t S p = f t S' p -> S = S';
    guest_reached : forall S p n, psw_M (to_psw t (entry p)) = supervisor ->
      exists h, n <= h <= 2 * n /\
        host_run m paper (all_direct paper) p h (on S p) = on (run m n S) p;
    nothing_else_happens : forall S p h, psw_M (to_psw t (entry p)) = supervisor ->
      exists n,
        (n <= h <= 2 * n /\ host_run m paper (all_direct paper) p h (on S p) = on (run m n S) p) \/
        (n <= h <= 2 * n + 1 /\ exists c, host_run m paper (all_direct paper) p h (on S p) =
           (Entered (m := m) c (exchange t (f t (run m n S) p)), (M (run m n S), R (run m n S))));
    resource_control : forall S p h, psw_M (to_psw t (entry p)) = supervisor ->
      safe_at p (length (E S)) (host_run m paper (all_direct paper) p h (on S p));
    efficiency : forall S p i S', psw_M (to_psw t (entry p)) = supervisor ->
      no_needless_traps t i -> fetch m S = inr i -> execute t i S = Completes S' ->
      host_run m paper (all_direct paper) p 1 (on S p) = on S' p
  }.

  Theorem monitor_from_A1 : A1_fidelity m paper -> virtual_machine_monitor.
  Proof.
    intros A1.
    destruct (theorem_1_from_premises m paper paper_A0 A1 paper_A2 paper_A4 paper_A5_vector)
      as [Reached Agreed _ _].
    split.
    - apply f_one_one.
    - intros S p n O. now apply Reached.
    - intros S p h O. destruct (Agreed S p h) as (n & [[At B] | [(_ & c & T & X & At) B]]); [easy | |];
        exists n; [left; now split | right; split; [lia |]; exists c].
      apply stops_in in X. subst T. exact At.
    - intros S p h O. exact (safe_if_agrees _ S p h (Agreed S p h (fun _ _ => O))).
    - intros S p i S' O NN F X.
      assert (takes m paper (all_direct paper) p S = 1) as One.
      { apply (runs_directly m paper _ p S i S'); auto.
        - apply paper_A8_fetch.
        - now apply no_needless_traps_A8.
        - now apply perform_next. }
      assert (step m S = S') as Step.
      { apply step_completes. exists i. split; [exact F | now apply perform_next]. }
      pose proof (one_step m paper (all_direct paper) p (fidelity_commutes _ _ _ _ paper_A2 A1) paper_A4 S O) as H.
      rewrite One, Step in H. exact H.
  Qed.

  (** Such a monitor needs that what the hardware completes commutes with f. *)
  Lemma monitor_needs p : virtual_machine_monitor -> psw_M (to_psw t (entry p)) = supervisor ->
    step_commutes m paper (all_direct paper) p.
  Proof.
    intros V O S T _ _ C. 
    assert (host_run m paper (all_direct paper) p 1 (on S p) = (Running (m := m) T, (M S, R S))) as Ran
      by exact (host_completes m paper (all_direct paper) p _ _ (M S, R S) C).
    destruct (nothing_else_happens V S p 1 O) as (n & [[B At] | [_ (c & At)]]);
      rewrite Ran in At.
    - assert (n = 1) as -> by lia. cbn [run] in At. unfold on in At.
      injection At as ET EM ER. split; [exact ET | cbn; now rewrite EM, ER].
    - discriminate At.
  Qed.

  (** Theorem 1. *)
  Theorem theorem_1 :
    (forall i, sensitive t i -> privileged t i) ->
    references_relocated t -> traps_in_user_too t -> confined t -> virtual_machine_monitor.
  Proof. intros Sub Refs Traps Conf. apply monitor_from_A1. now apply classes_imply_A1. Qed.

  (** ** Safety alone

      That the control program is safe needs less, and says nothing of fidelity: if control sensitive
      instructions are privileged and what is not privileged is confined, then a step that the hardware
      completes takes it from the image of some guest to the image of some guest. *)
  Theorem safety_alone :
    (forall i, control_sensitive t i -> privileged t i) -> confined t ->
    forall S p h, completes m (f t S p : Machine.state m) h ->
    exists S', h = f t S' p /\ length (E S') = length (E S) /\ M S' = M S /\ R S' = R S.
  Proof.
    intros Sub Conf S p h (i & _ & X). apply perform_next in X.
    assert (~ privileged t i) as NotPriv by (intros [Never _]; now apply (Never (f t S p) h)).
    destruct (keeps_control t i (f t S p) h) as [Mh Rh]; [| exact X |].
    { intros Sens. apply NotPriv, Sub, Sens. }
    pose proof (Conf i _ _ NotPriv X) as Alone.
    set (e := replace_view (R S) (view (R (f t S p)) (E h)) (E S)).
    assert (length (view (R (f t S p)) (E h)) = length (view (R S) (E S))) as LenV.
    { rewrite <- (view_f t S p). pose proof (keeps_size t i _ _ X) as Len.
      destruct Alone as [A B].
      rewrite (split_view (R (f t S p)) (E h)), (split_view (R (f t S p)) (E (f t S p))), A, B in Len.
      rewrite !app_length in Len. lia. }
    destruct (replaced (R S) _ (E S) LenV) as (B1 & V & B2 & LenE). fold e in B1, V, B2, LenE.
    set (S' := St e (M S) (P h) (R S)). exists S'.
    assert (E h = low t S' p ++ E S' ++ behind p) as Eh.
    { apply (storage_of_step t S S' h p); auto. now split. }
    split; [| auto]. unfold f. rewrite <- Eh. cbn [E M P R S']. rewrite LenE.
    cbn [f M R] in Mh, Rh. rewrite <- Mh, <- Rh. now destruct h.
  Qed.
End Classes.
